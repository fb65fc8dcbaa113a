"""The functions, by the examples that document them. Each line is an expression that must be true, or must fail."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.cel import CelError, Declarations, compile


def value(expression: str) -> Any:
    return compile(expression, Declarations(), result=None).evaluate({})


TRUE = """
1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1
5u + 3u == 8u && 7u / 2u == 3u && 1.0 / 0.0 > 1.0e308
1 < 2.5 && 2u > 1 && 1u <= 1.0 && dyn(1) == 1.0 && dyn(1u) == 1 && dyn(true) != 1
0x1F == 31 && -0x10 == -16 && 1e3 == 1000.0 && .5 == 0.5
'a' < 'b' && 'ab' < 'b' && b'a' < b'b' && false < true
'\\u00e9' == 'é' && '\\x41\\101' == 'AA' && r'\\n' == '\\\\n' && '''a'b''' == "a'b"
b'\\xff' != b'ÿ' && b'ÿ' == b'\\xc3\\xbf' && bytes('é') == b'\\303\\251'
[1, 2] + [3] == [1, 2, 3] && 2 in [1, 2] && !(3 in [1, 2]) && {'a': 1}['a'] == 1
{'a': 1, 'b': 2} == {'b': 2, 'a': 1} && 'a' in {'a': 1} && {1: 'x'}[1] == 'x'
(true || 1 / 0 == 1) && !(false && 1 / 0 == 1) && (1 / 0 == 1 || true)
true ? true : 1 / 0 == 1
[1, 2, 3].all(x, x > 0) && [1, 2, 3].exists(x, x > 2) && [1, 2, 3].exists_one(x, x > 2)
[0, 1].exists(x, 1 / x == 1) && ![0, 1].all(x, 1 / x == 2)
[1, 2, 3].map(x, x * x) == [1, 4, 9] && [1, 2, 3].filter(x, x % 2 == 1) == [1, 3]
[1, 2, 3].map(x, x > 1, x * 2) == [4, 6] && {'a': 1}.map(k, k) == ['a']
[[1, 2], [3]].map(l, l.map(x, x + 1)) == [[2, 3], [4]]
{'a': 1, 'b': 2}.all(k, v, v > 0 && k != '') && ['a', 'b'].exists(i, v, i == 1 && v == 'b')
[5, 6].transformList(i, v, i + v) == [5, 7] && [5, 6].transformList(i, v, i > 0, v) == [6]
{'a': 1, 'b': 2}.transformMap(k, v, v * 2) == {'a': 2, 'b': 4}
{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2} && [7].transformMap(i, v, v) == {0: 7}
{'a': 1}.transformMapEntry(k, v, {v: k}) == {1: 'a'}
cel.bind(x, [1, 2], x + x) == [1, 2, 1, 2] && cel.bind(x, 1 / 0, true)
cel.bind(x, 1, cel.bind(y, x + 1, x + y)) == 3
[1, ?optional.of(2), ?optional.none()] == [1, 2] && {'a': 1, ?'b': optional.none()} == {'a': 1}
optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().optMap(x, x).hasValue()
optional.of(1).optFlatMap(x, optional.of(x + 1)) == optional.of(2)
optional.of({'a': {'b': 1}}).a.b.orValue(0) == 1 && {'a': {'b': 1}}.?a.?c.orValue(5) == 5
[1, 2][?5].orValue(0) == 0 && {'a': 1}[?'a'].hasValue() && has({'a': 1}.a) && !has({'a': 1}.b)
optional.ofNonZeroValue('') == optional.none() && optional.of(null).hasValue()
optional.of(1).orValue(1 / 0) == 1 && optional.of(1).or(optional.of(1 / 0)).value() == 1
optional.none().or(optional.of(3)).value() == 3 && [optional.of(1), optional.none()].unwrapOpt() == [1]
type(1) == int && type(1u) == uint && type('') == string && type(null) == null_type && type(type(1)) == type
type([]) == list && type({}) == map && type(1.5) == double && type(b'') == bytes && type(true) == bool
type(duration('1s')) == google.protobuf.Duration && type(timestamp(0)) == google.protobuf.Timestamp
int('-12') == -12 && int(3.9) == 3 && int(-3.9) == -3 && uint(3.9) == 3u && int(5u) == 5
double('1.5e2') == 150.0 && double(3) == 3.0 && string(1.5) == '1.5' && string(true) == 'true'
string(1e6) == '1e+06' && string(100000.0) == '100000' && string(0.0001) == '0.0001' && string(1e-5) == '1e-05'
string(-1) == '-1' && string(b'abc') == 'abc' && bool('true') && !bool('False')
size('añ') == 2 && size(b'añ') == 3 && [1, 2].size() == 2 && size({'a': 1}) == 1
'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo') && ''.contains('')
'hello'.matches('^h.*o$') && matches('abc', 'b') && !'abc'.matches('^b')
timestamp('2009-02-13T23:31:30Z') == timestamp(1234567890) && int(timestamp(5)) == 5
timestamp('2024-02-29T00:00:00Z') + duration('24h') == timestamp('2024-03-01T00:00:00Z')
timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')
string(timestamp('2011-08-18T19:03:37.01+01:00')) == '2011-08-18T19:03:37.01+01:00'
string(duration('1h2m3.004s')) == '3723.004s' && string(duration('-1.5s')) == '-1.5s' && string(duration('0')) == '0s'
duration('1h') > duration('59m') && duration('1m') == duration('60s') && -duration('1s').getSeconds() == -1
timestamp('2024-03-10T10:11:12.013Z').getFullYear() == 2024 && timestamp('2024-03-10T10:11:12.013Z').getMonth() == 2
timestamp('2024-03-10T10:11:12.013Z').getDate() == 10 && timestamp('2024-03-10T10:11:12Z').getDayOfMonth() == 9
timestamp('2024-03-10T10:11:12Z').getDayOfWeek() == 0 && timestamp('2024-03-10T10:11:12Z').getDayOfYear() == 69
timestamp('2024-03-10T10:11:12.013Z').getMilliseconds() == 13 && timestamp('2024-03-10T10:11:12Z').getMinutes() == 11
timestamp('2024-07-01T00:00:00Z').getHours('America/New_York') == 20 && timestamp(0).getHours('-02:30') == 21
duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90 && duration('1.5s').getMilliseconds() == 1500
'hello'.charAt(4) == 'o' && 'hello'.charAt(5) == '' && 'hello mellow'.indexOf('ello') == 1
'hello mellow'.indexOf('ello', 2) == 7 && 'hello mellow'.indexOf('jello') == -1 && 'hello'.indexOf('', 2) == 2
'hello mellow'.lastIndexOf('ello') == 7 && 'hello mellow'.lastIndexOf('ello', 6) == 1 && 'hello'.lastIndexOf('') == 5
['hello', 'mellow'].join() == 'hellomellow' && ['hello', 'mellow'].join(' ') == 'hello mellow' && [].join('/') == ''
'TacoCÆt'.lowerAscii() == 'tacocÆt' && 'TacoCÆt Xii'.upperAscii() == 'TACOCÆT XII'
'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'
'hello hello'.replace('he', 'we', 0) == 'hello hello' && 'ab'.replace('', '-') == '-a-b-'
'hello hello hello'.split(' ') == ['hello', 'hello', 'hello'] && 'a b c'.split(' ', 0) == []
'a b c'.split(' ', 1) == ['a b c'] && 'a b c'.split(' ', 2) == ['a', 'b c'] && 'abc'.split('') == ['a', 'b', 'c']
'abc'.split('', 2) == ['a', 'bc'] && ''.split(',') == ['']
'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'abc'.substring(3) == ''
'  \\ttrim\\n    '.trim() == 'trim' && 'gums'.reverse() == 'smug'
strings.quote('single-quote with "double quote"') == '"single-quote with \\\\"double quote\\\\""'
strings.quote('two escapes \\\\a\\n') == '"two escapes \\\\\\\\a\\\\n"'
'%s is %d years, %.2f %% and %x'.format(['a', 12, 1.005, 255]) == 'a is 12 years, 1.00 % and ff'
'%s %s %s'.format([[1, 'a', null], {'b': 2, 'a': true}, timestamp(0)]) == '[1, a, null] {a: true, b: 2} 1970-01-01T00:00:00Z'
'%b %o %X %x'.format([5, 8, 'hello', b'hi']) == '101 10 68656C6C6F 6869' && '%e'.format([1052.032911275]) == '1.052033e+03'
[1, 2, 3].isSorted() && ['a', 'b', 'b'].isSorted() && ![2.0, 1.0].isSorted() && [duration('1s'), duration('2s')].isSorted()
[1, 3].sum() == 4 && [1.0, 3.0].sum() == 4.0 && [duration('1m'), duration('1s')].sum() == duration('1m1s') && [].sum() == 0
[1, 3].min() == 1 && ['a', 'b'].max() == 'b' && [1, 2, 2, 3].indexOf(2) == 1 && ['a', 'b', 'b'].lastIndexOf('b') == 2
['a'].indexOf('z') == -1 && [1, 2, 3, 4].slice(1, 3) == [2, 3] && [[1, 2], [3]].flatten() == [1, 2, 3]
[dyn(1), dyn([2, dyn([3])].filter(x, true))].flatten(2) == [1, 2, 3]
[3, 2, 1].sort() == [1, 2, 3] && ['b', 'a'].sort() == ['a', 'b'] && [1, 2, 2, 1].distinct() == [1, 2]
[{'n': 'b', 'v': 'x'}, {'n': 'a', 'v': 'y'}].sortBy(e, e.n).map(e, e.v) == ['y', 'x']
['bb', 'a', 'ccc'].sortBy(x, size(x)) == ['a', 'bb', 'ccc'] && [1, 2].reverse() == [2, 1]
[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && !([].first().hasValue()) && lists.range(3) == [0, 1, 2]
sets.contains([1, 2, 3], [2, 3]) && sets.contains([], []) && !sets.contains([1], [1, 2])
sets.equivalent([1, 2, 2], [2, 1]) && !sets.equivalent([1], [1, 2]) && sets.equivalent([[1], [2, 3]], [[2, 3], [1]])
sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], []) && sets.intersects([[1]], [[2], [1]])
'abc 123'.find('[0-9]*') == '' && 'abc 123'.find('[0-9]+') == '123' && '123 abc 456'.findAll('[0-9]+') == ['123', '456']
'baaac'.findAll('a*') == ['', 'aaa', ''] && 'ñb'.findAll('x*') == ['', '', ''] && 'añb'.find('ñ.') == 'ñb'
'123 abc 456'.findAll('[0-9]+', 1) == ['123'] && 'abc'.findAll('[0-9]+') == []
isURL('https://user:pass@example.com:80/path?query=val#fragment') && isURL('/absolute-path') && !isURL('https://a:b:c/')
!isURL('../relative-path') && !isURL('') && url('https://example.com:80/').getHost() == 'example.com:80'
url('/path').getScheme() == '' && url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getHost() == '[::1]:80'
url('https://example.com:80/').getPort() == '80' && url('https://example.com/').getPort() == '' && url('/p').getHost() == ''
url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'
url('https://example.com').getEscapedPath() == '' && url('HTTPS://x/').getScheme() == 'https'
url('https://example.com/p?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}
url('https://example.com/path?key with spaces=value with spaces').getQuery() == {'key with spaces': ['value with spaces']}
url('https://example.com/path?').getQuery() == {} && url('/path').getQuery() == {} && url('/a') == url('/a')
isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256') && !isIP(':::1') && !isIP('01.2.3.4') && !isIP('::ffff:1.2.3.4')
!isIP('fe80::1%eth0') && ip('127.0.0.1').family() == 4 && ip('::1').family() == 6 && ip.isCanonical('2001:db8::abcd')
!ip.isCanonical('2001:DB8::ABCD') && !ip.isCanonical('2001:db8:0:0:0:0:0:abcd') && ip('::1') == ip('0:0:0:0:0:0:0:1')
ip('0.0.0.0').isUnspecified() && ip('::').isUnspecified() && ip('127.5.0.1').isLoopback() && ip('::1').isLoopback()
ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast() && !ip('224.0.1.1').isLinkLocalMulticast()
ip('169.254.1.1').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast() && ip('1.2.3.4').isGlobalUnicast()
!ip('255.255.255.255').isGlobalUnicast() && ip('fd00::1').isGlobalUnicast() && ip('10.0.0.1').isGlobalUnicast()
string(ip('::0001')) == '::1' && type(ip('1.2.3.4')) == net.IP && type(cidr('::/0')) == net.CIDR
isCIDR('192.168.0.0/16') && isCIDR('::1/128') && !isCIDR('192.168.0.0/33') && !isCIDR('192.168.0.0') && !isCIDR('1.2.3.0/024')
cidr('192.168.0.0/24').containsIP('192.168.0.5') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.5'))
!cidr('192.168.0.0/24').containsIP('::1') && cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')
!cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/16')) && cidr('::/0').containsCIDR('2001:db8::/32')
cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24') && cidr('192.168.1.5/24').ip() == ip('192.168.1.5')
cidr('192.168.0.0/24').prefixLength() == 24 && string(cidr('192.168.0.0/24')) == '192.168.0.0/24'
quantity('500m').isLessThan(quantity('1')) && quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('1.3Gi')
!isQuantity('200K') && !isQuantity('Three') && quantity('200M') == quantity('0.2G') && quantity('50k').isInteger()
quantity('50000000G').isInteger() && !quantity('9999999999999999999999999999999999999G').isInteger()
quantity('50k').asInteger() == 50000 && quantity('50k').sub(20000).asApproximateFloat() == 30000.0
quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').add(20) == quantity('50020')
quantity('50M').compareTo(quantity('50Mi')) == -1 && quantity('200M').compareTo(quantity('0.2G')) == 0
quantity('50k').add(20).sub(quantity('100k')).sub(-50000) == quantity('20') && quantity('-1').sign() == -1 && sign(quantity('0')) == 0
semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3 && isSemver('0.1.0-alpha.1')
!isSemver('v1.0.0') && isSemver('v1.0', true) && semver('01.01.01', true) == semver('1.1.1') && !isSemver('1.0')
semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) && !isSemver('01.1.1')
semver('1.0.0-alpha.1').compareTo(semver('1.0.0-alpha.beta')) == -1 && semver('1.0.0+a') == semver('1.0.0+b')
semver('1.0.0-2').isLessThan(semver('1.0.0-10')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0-alpha.1'))
!format.dns1123Label().validate('my-label-name').hasValue() && format.dns1123Label().validate('No.Good').hasValue()
!format.dns1123Subdomain().validate('apiextensions.k8s.io').hasValue() && !format.labelValue().validate('').hasValue()
!format.qualifiedName().validate('apiextensions.k8s.io/v1beta1').hasValue() && !format.dns1035LabelPrefix().validate('a-').hasValue()
!format.dns1123SubdomainPrefix().validate('mysubdomain.prefix.-').hasValue() && !format.uri().validate('http://example.com').hasValue()
!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && !format.byte().validate('aGVsbG8=').hasValue()
!format.date().validate('2021-01-01').hasValue() && !format.datetime().validate('2021-01-01T00:00:00Z').hasValue()
format.date().validate('2021-13-01').value() == ['invalid date'] && !format.named('nope').hasValue()
format.named('dns1123Label').value() == format.dns1123Label() && format.uuid().validate('x').value() == ['does not match the UUID format']
math.greatest(1, 2, 3) == 3 && math.least(1.5, 2.5) == 1.5 && math.greatest([1, 5, 2]) == 5 && math.greatest(1, 2.5) == 2.5
math.ceil(1.2) == 2.0 && math.floor(-1.2) == -2.0 && math.round(1.5) == 2.0 && math.round(-2.5) == -3.0 && math.trunc(-1.9) == -1.0
math.abs(-3) == 3 && math.sign(-2.5) == -1.0 && math.isNaN(0.0 / 0.0) && math.isInf(1.0 / 0.0) && math.isFinite(1.0) && math.sqrt(9) == 3.0
math.bitAnd(6, 3) == 2 && math.bitOr(6u, 3u) == 7u && math.bitXor(6, 3) == 5 && math.bitNot(0) == -1 && math.bitShiftLeft(1, 4) == 16
math.bitShiftRight(-1, 63) == 1 && math.bitShiftLeft(1u, 64) == 0u && math.bitNot(0u) == 18446744073709551615u
base64.encode(b'hello') == 'aGVsbG8=' && base64.decode('aGVsbG8') == b'hello' && jsonpatch.escapeKey('k8s.io/my~label') == 'k8s.io~1my~0label'
"""

FAILS = """
1 / 0 | division by zero
5 % 0 | modulus by zero
9223372036854775807 + 1 | integer overflow
-9223372036854775807 - 2 | integer overflow
0u - 1u | unsigned integer overflow
int(1e20) | integer overflow
uint(-1) | unsigned integer overflow
int('x') | type conversion error
string(b'\\xff') | invalid UTF-8
[1, 2][2] | index out of bounds: 2
{'a': 1}['b'] | no such key: b
{'a': 1}.b | no such key: b
{'a': 1, 'a': 2} | Failed with repeated key: a
dyn('a') + dyn(1) | no such overload: _+_(string, int)
dyn(1) && true | no such overload
!dyn(1) | no such overload
dyn([1]) < dyn([2]) | no such overload
timestamp('9999-12-31T23:59:59Z') + duration('1s') | timestamp overflow
timestamp(0).getHours('Nowhere/Land') | unknown time zone
'abc'.charAt(7) | index out of range: 7
'tacocat'.substring(40) | index out of range: 40
'tacocat'.substring(3, 2) | invalid substring range. start: 3, end: 2
'%d'.format(['a']) | decimal clause can only be used on integers, was given string
'%s %s'.format([1]) | index 1 out of range
'%z'.format([1]) | unrecognized formatting clause
'%.2000f'.format([1.0]) | precision
[].min() | min called on empty list
[1, 2].slice(1, 5) | list is length 2
[dyn(1), dyn('a')].sort() | same type
ip('127.0.0.256') | parse error
cidr('1.2.3.4') | is no CIDR
url('not a url') | invalid URI
quantity('Mi') | quantities must match
quantity('9999999999999999999G').asInteger() | cannot convert value to integer
semver('200K') | is no semantic version
base64.decode('*') | illegal base64
dyn('a').matches(string('(')) | error parsing regexp
'a'.matches('(' + 'b') | error parsing regexp
optional.none().value() | dereference
[1].transformMapEntry(i, v, {1: i, 2: v}).size() == 2 && [1, 2].transformMapEntry(i, v, {'same': v}).size() == 1 | already exists
lists.range(100000000) | at most
[1, 2].exists(x, x / 0 == 1) | division by zero
"""


@pytest.mark.parametrize("expression", TRUE.strip().splitlines())
def test_documented_examples_hold(expression: str) -> None:
    assert value(expression) is True


@pytest.mark.parametrize("line", FAILS.strip().splitlines())
def test_documented_failures_fail(line: str) -> None:
    expression, _, message = line.rpartition(" | ")
    with pytest.raises(CelError) as caught:
        value(expression)
    assert message in str(caught.value)
