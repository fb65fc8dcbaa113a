"""What every store promises, told one behaviour at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from fleetplane.store.protocol import (
    ABSENT,
    Claim,
    ClaimTaken,
    Delete,
    Event,
    Expect,
    Expired,
    FutureRevision,
    Key,
    PreconditionFailed,
    Put,
    Record,
    Selection,
    SlowWatcher,
    Store,
    StoreUnavailable,
    TermMatch,
    Watch,
)

PODS = Selection("", "pods")


def key(name: str, namespace: str = "default", cluster: str = "root", resource: str = "pods") -> Key:
    return Key(cluster, "", resource, namespace, name)


def put(name: str, value: str = "v", **more: Any) -> Put:
    where = {field: more.pop(field) for field in ("namespace", "cluster", "resource") if field in more}
    return Put(key(name, **where), more.pop("uid", f"uid-{name}"), value.encode(), **more)


def names(records: list[Record]) -> list[str]:
    return [record.key.name for record in records]


def told(events: list[Event] | Any) -> list[tuple[int, bool, str, bytes]]:
    return [(e.record.revision, e.deleted, e.record.key.name, e.record.value) for e in events]


async def nothing_within(watch: Watch, seconds: float = 0.02) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.next(), seconds)


class TestCommit:
    async def test_a_new_store_is_empty_at_a_positive_revision(self, store: Store) -> None:
        page = await store.list(PODS)

        assert page.records == []
        assert page.revision == await store.revision() >= 1

    async def test_a_created_object_is_read_back_whole(self, store: Store) -> None:
        change = put("a", "body", encoding="v1/3", terms=(("label:app", "web"), ("node", "")), uid="u-1")

        [record] = await store.commit([change])

        assert record == await store.get(change.key)
        assert record == Record(
            change.key, "u-1", record.revision, record.revision, "v1/3", b"body", (("label:app", "web"), ("node", ""))
        )

    async def test_what_does_not_exist_is_none(self, store: Store) -> None:
        await store.commit([put("a")])

        assert await store.get(key("b")) is None
        assert await store.get(key("a", cluster="other")) is None
        assert await store.get(key("a", resource="never-seen")) is None

    async def test_any_bytes_are_values(self, store: Store) -> None:
        value = bytes(range(256)) * 100
        await store.commit([Put(key("a"), "u", value), Put(key("b"), "u", b"")])

        assert [record.value for record in (await store.list(PODS)).records] == [value, b""]

    async def test_each_change_has_a_revision_of_its_own_in_order(self, store: Store) -> None:
        before = await store.revision()

        records = await store.commit([put("a"), put("b"), Delete(key("a"))])

        assert [record.revision for record in records] == [before + 1, before + 2, before + 3]
        assert await store.revision() == before + 3

    async def test_an_update_keeps_the_creation_revision(self, store: Store) -> None:
        [created] = await store.commit([put("a", "1")])
        [updated] = await store.commit([put("a", "2")])

        assert updated.created_revision == created.revision < updated.revision

    async def test_another_uid_is_another_object(self, store: Store) -> None:
        await store.commit([put("a", uid="first")])
        [record] = await store.commit([put("a", uid="second")])

        assert record.created_revision == record.revision

    async def test_a_deletion_returns_the_last_state(self, store: Store) -> None:
        [created] = await store.commit([put("a", "1", terms=(("x", "y"),))])
        [gone] = await store.commit([Delete(key("a"))])

        assert (gone.value, gone.uid, gone.terms) == (b"1", "uid-a", (("x", "y"),))
        assert gone.created_revision == created.revision < gone.revision
        assert await store.get(key("a")) is None

    async def test_a_deletion_may_replace_the_last_state(self, store: Store) -> None:
        await store.commit([put("a", "1")])
        watch = await store.watch(PODS)
        [gone] = await store.commit([Delete(key("a"), final=b"last words")])

        [event] = (await watch.next()).events
        assert gone.value == event.record.value == b"last words"
        assert event.previous is not None and event.previous.value == b"1"

    async def test_deleting_what_is_not_there_fails(self, store: Store) -> None:
        with pytest.raises(PreconditionFailed) as failed:
            await store.commit([Delete(key("a"))])

        assert failed.value.current is None

    async def test_nothing_to_do_is_nothing_done(self, store: Store) -> None:
        before = await store.revision()

        assert await store.commit([]) == []
        assert await store.revision() == before

    async def test_less_durable_commits_are_seen_like_others(self, store: Store) -> None:
        watch = await store.watch(PODS)

        [record] = await store.commit([put("a")], durable=False)

        assert await store.get(key("a")) == record
        assert [event.record for event in (await watch.next()).events] == [record]

    @pytest.mark.parametrize("bad", ["nul\0", "lone\ud800surrogate", "long" * 257, "\U0001f600" * 257])
    async def test_text_that_cannot_be_stored_harms_nobody_else(self, store: Store, bad: str) -> None:
        good, refused = await asyncio.gather(
            store.commit([put("a", terms=(("x", "y" * 1023),))]),
            store.commit([put("b", terms=(("x", bad),))]),
            return_exceptions=True,
        )

        assert isinstance(refused, ValueError)
        assert isinstance(good, list) and await store.get(key("a")) == good[0]


class TestPreconditions:
    async def test_absent_refuses_what_exists_and_shows_it(self, store: Store) -> None:
        [record] = await store.commit([put("a", precondition=ABSENT)])

        with pytest.raises(PreconditionFailed) as failed:
            await store.commit([put("a", "2", precondition=ABSENT)])

        assert (failed.value.key, failed.value.current) == (key("a"), record)

    async def test_a_deleted_object_is_absent(self, store: Store) -> None:
        await store.commit([put("a")])
        await store.commit([Delete(key("a"))])

        await store.commit([put("a", "2", precondition=ABSENT)])

    @pytest.mark.parametrize("make", [lambda e: put("a", "2", precondition=e), lambda e: Delete(key("a"), e)])
    async def test_revision_and_uid_must_both_hold(self, store: Store, make: Any) -> None:
        [record] = await store.commit([put("a", uid="u")])

        for wrong in (
            Expect(record.revision + 1),
            Expect(record.revision - 1),
            Expect(record.revision, "other"),
            Expect(uid="other"),
        ):
            with pytest.raises(PreconditionFailed) as failed:
                await store.commit([make(wrong)])
            assert failed.value.current == record
        await store.commit([make(Expect(record.revision, "u"))])

    async def test_expecting_anything_refuses_nothing(self, store: Store) -> None:
        with pytest.raises(PreconditionFailed) as failed:
            await store.commit([put("a", precondition=Expect())])

        assert failed.value.current is None

    async def test_a_commit_is_all_or_nothing(self, store: Store) -> None:
        [kept] = await store.commit([put("kept", claims=(Claim("ip", "1"),))])
        before = await store.revision()

        with pytest.raises(PreconditionFailed):
            await store.commit([put("new"), Delete(key("kept")), put("other", precondition=Expect(uid="x"))])

        assert (await store.list(PODS)).records == [kept]
        assert await store.revision() == before
        with pytest.raises(ClaimTaken):
            await store.commit([put("new", claims=(Claim("ip", "1"),))])

    async def test_later_changes_of_a_commit_see_the_earlier(self, store: Store) -> None:
        await store.commit([put("a", "1"), put("a", "2", precondition=Expect(uid="uid-a")), Delete(key("a"))])
        await store.commit([put("a", "3", precondition=ABSENT), Delete(key("a")), put("a", "4", precondition=ABSENT)])

        record = await store.get(key("a"))
        assert record is not None and record.value == b"4"

    async def test_of_many_at_once_one_wins_and_the_others_see_it(self, store: Store) -> None:
        async def create(number: int) -> Record | None:
            try:
                return (await store.commit([put("a", str(number), precondition=ABSENT)]))[0]
            except PreconditionFailed as failed:
                assert failed.current is not None
                assert failed.current == await store.get(key("a"))
                return None

        outcomes = await asyncio.gather(*(create(number) for number in range(20)))

        assert [one for one in outcomes if one] == [await store.get(key("a"))]

    async def test_concurrent_commits_do_not_share_their_fate(self, store: Store) -> None:
        [record] = await store.commit([put("a", "0")])

        outcomes = await asyncio.gather(
            *(
                store.commit([put(f"n{n}"), *([put("a", precondition=Expect(record.revision + 99))] if n % 2 else [])])
                for n in range(10)
            ),
            return_exceptions=True,
        )

        assert [isinstance(one, PreconditionFailed) for one in outcomes] == [False, True] * 5
        assert names((await store.list(PODS)).records) == ["a", "n0", "n2", "n4", "n6", "n8"]

    async def test_counting_up_loses_nothing(self, store: Store) -> None:
        await store.commit([put("counter", "0")])

        async def increment() -> None:
            while True:
                now = await store.get(key("counter"))
                assert now is not None
                try:
                    await store.commit([put("counter", str(int(now.value) + 1), precondition=Expect(now.revision))])
                except PreconditionFailed:
                    continue
                return

        await asyncio.gather(*(increment() for _ in range(12)))

        record = await store.get(key("counter"))
        assert record is not None and record.value == b"12"


class TestClaims:
    IP = (Claim("ip", "10.0.0.1"),)

    async def test_one_holder_at_a_time(self, store: Store) -> None:
        await store.commit([put("a", claims=self.IP)])

        with pytest.raises(ClaimTaken) as taken:
            await store.commit([put("b", claims=self.IP)])

        assert (taken.value.claim, taken.value.holder) == (self.IP[0], key("a"))

    async def test_held_per_scope_value_and_cluster(self, store: Store) -> None:
        await store.commit([put("a", claims=self.IP)])

        await store.commit(
            [
                put("b", claims=(Claim("ip", "10.0.0.2"),)),
                put("c", claims=(Claim("port", "10.0.0.1"),)),
                put("d", cluster="other", claims=self.IP),
            ]
        )

    async def test_any_kind_of_object_may_hold_it(self, store: Store) -> None:
        await store.commit([put("a", claims=self.IP)])

        with pytest.raises(ClaimTaken):
            await store.commit([put("a", resource="services", claims=self.IP)])

    @pytest.mark.parametrize("release", [Delete(key("a")), put("a", "without")])
    async def test_released_with_the_object_or_by_writing_without(self, store: Store, release: Any) -> None:
        await store.commit([put("a", claims=self.IP)])

        await store.commit([release])

        await store.commit([put("b", claims=self.IP)])

    async def test_kept_by_writing_again(self, store: Store) -> None:
        await store.commit([put("a", claims=self.IP)])
        await store.commit([put("a", "2", claims=(*self.IP, Claim("port", "80")))])

        with pytest.raises(ClaimTaken):
            await store.commit([put("b", claims=self.IP)])

    async def test_may_move_within_a_commit_once_released(self, store: Store) -> None:
        await store.commit([put("a", claims=self.IP)])

        with pytest.raises(ClaimTaken):
            await store.commit([put("b", claims=self.IP), put("a")])
        await store.commit([put("a"), put("b", claims=self.IP)])

        with pytest.raises(ClaimTaken) as taken:
            await store.commit([put("c", claims=self.IP)])
        assert taken.value.holder == key("b")

    async def test_of_many_at_once_one_gets_it(self, store: Store) -> None:
        outcomes = await asyncio.gather(
            *(store.commit([put(f"n{n}", claims=self.IP)]) for n in range(10)), return_exceptions=True
        )

        losers = [one for one in outcomes if isinstance(one, ClaimTaken)]
        [winner] = (await store.list(PODS)).records
        assert len(losers) == 9
        assert {loser.holder for loser in losers} == {winner.key}


class TestList:
    async def test_in_the_order_of_cluster_namespace_and_name(self, store: Store) -> None:
        places = [
            ("b", "x", "a"),
            ("a", "y", "a"),
            ("a", "x", "b"),
            ("a", "x", "a-"),
            ("a", "x", "a"),
            ("a", "x-", "a"),
        ]
        await store.commit([put(name, cluster=cluster, namespace=ns) for cluster, ns, name in places])

        page = await store.list(PODS)

        assert [(r.key.cluster, r.key.namespace, r.key.name) for r in page.records] == sorted(places)

    async def test_order_is_that_of_code_points(self, store: Store) -> None:
        odd = ["a", "Z", "é", "\U0001f600", "\uffee", "~"]
        await store.commit([put(name) for name in odd])

        assert names((await store.list(PODS)).records) == sorted(odd)

    @pytest.mark.parametrize(
        ("narrowed", "expected"),
        [
            (Selection("", "pods"), ["a1", "a2", "b1", "c1"]),
            (Selection("", "pods", "one"), ["a1", "a2", "b1"]),
            (Selection("", "pods", "one", "x"), ["a1", "a2"]),
            (Selection("", "pods", "one", "x", "a2"), ["a2"]),
            (Selection("", "pods", None, "x"), ["a1", "a2", "c1"]),
            (Selection("", "pods", None, None, "c1"), ["c1"]),
            (Selection("", "pods", "none"), []),
            (Selection("apps", "pods"), []),
        ],
    )
    async def test_narrowed_by_what_is_given(self, store: Store, narrowed: Selection, expected: list[str]) -> None:
        await store.commit(
            [
                put("a1", cluster="one", namespace="x"),
                put("a2", cluster="one", namespace="x"),
                put("b1", cluster="one", namespace="y"),
                put("c1", cluster="two", namespace="x"),
                put("no", cluster="one", namespace="x", resource="services"),
            ]
        )

        assert names((await store.list(narrowed)).records) == expected
        assert await store.count(narrowed) == len(expected)

    @pytest.mark.parametrize(
        ("matches", "expected"),
        [
            ([TermMatch("app", "web")], ["a", "b"]),
            ([TermMatch("app", "web"), TermMatch("tier", "front")], ["a"]),
            ([TermMatch("app", "we", prefix=True)], ["a", "b", "c"]),
            ([TermMatch("app", "", prefix=True)], ["a", "b", "c", "d"]),
            ([TermMatch("app", "w", prefix=True), TermMatch("tier", "fr", prefix=True)], ["a"]),
            ([TermMatch("app", "web"), TermMatch("tier", "", prefix=True)], ["a", "b"]),
            ([TermMatch("app", "")], []),
            ([TermMatch("tier", "", prefix=True)], ["a", "b"]),
            ([TermMatch("path", "a%", prefix=True)], ["d"]),
            ([TermMatch("path", "\U0010ffff", prefix=True)], ["e"]),
            ([TermMatch("path", "\ud7ff", prefix=True)], ["f"]),
        ],
    )
    async def test_by_terms(self, store: Store, matches: list[TermMatch], expected: list[str]) -> None:
        await store.commit(
            [
                put("a", terms=(("app", "web"), ("tier", "front"))),
                put("b", terms=(("app", "web"), ("tier", "back"))),
                put("c", terms=(("app", "webster"), ("app", "wet"))),
                put("d", terms=(("app", "other"), ("path", "a%b"))),
                put("e", terms=(("path", "\U0010ffff\U0010ffff"),)),
                put("f", terms=(("path", "\ud7ff!"),)),
                put("g", terms=(("path", "\ue000"),)),
            ]
        )
        selection = Selection("", "pods", matches=tuple(matches))

        assert names((await store.list(selection)).records) == expected
        assert await store.count(selection) == len(expected)

    async def test_terms_follow_updates_and_deletions(self, store: Store) -> None:
        web = Selection("", "pods", matches=(TermMatch("app", "web"),))
        await store.commit([put(n, terms=(("app", "web"), ("n", n))) for n in "abc"])
        await store.commit([put("a", terms=(("app", "db"),)), Delete(key("b"))])
        assert names((await store.list(web)).records) == ["c"]

        await store.commit([put("a", terms=(("app", "web"),))])
        assert names((await store.list(web)).records) == ["a", "c"]

    async def test_pages_show_the_revision_of_the_first(self, store: Store) -> None:
        await store.commit([put(name, "old") for name in "abcdef"])
        first = await store.list(PODS, limit=2)
        await store.commit([put("a0"), Delete(key("c")), put("d", "new"), put("x")])
        await store.commit([put("c", "again"), put("d", "newer")])

        second = await store.list(PODS, limit=2, after=first.next, revision=first.revision)
        third = await store.list(PODS, limit=2, after=second.next, revision=first.revision)

        pages = [first, second, third]
        assert [names(page.records) for page in pages] == [["a", "b"], ["c", "d"], ["e", "f"]]
        assert {record.value for page in pages for record in page.records} == {b"old"}
        assert [page.revision for page in pages] == [first.revision] * 3
        assert third.next is None

    @pytest.mark.parametrize("prefix", [False, True])
    async def test_pages_by_term_show_the_revision_of_the_first(self, store: Store, prefix: bool) -> None:
        web = Selection("", "pods", "root", matches=(TermMatch("app", "web", prefix),))
        await store.commit([put(name, terms=(("app", "web"),)) for name in "abcd"])
        first = await store.list(web, limit=1)
        await store.commit([put("b"), put("b2", terms=(("app", "web"),)), Delete(key("c"))])

        rest = await store.list(web, after=first.next, revision=first.revision)

        assert names(first.records + rest.records) == ["a", "b", "c", "d"]

    async def test_every_past_revision_can_be_listed(self, store: Store) -> None:
        seen: dict[int, list[tuple[str, bytes]]] = {}
        for changes in ([put("a", "1")], [put("b", "2")], [put("a", "3")], [Delete(key("b"))], [put("b", "4")]):
            await store.commit(changes)
            page = await store.list(PODS)
            seen[page.revision] = [(record.key.name, record.value) for record in page.records]

        for revision, expected in seen.items():
            page = await store.list(PODS, revision=revision)
            assert [(record.key.name, record.value) for record in page.records] == expected
            assert page.revision == revision

    async def test_a_key_to_continue_after_need_not_exist(self, store: Store) -> None:
        await store.commit([put(name, namespace=ns) for ns in ("x", "y") for name in "ace"])

        assert names((await store.list(PODS, after=key("b", "x"))).records) == ["c", "e", "a", "c", "e"]
        assert names((await store.list(Selection("", "pods", "root", "x"), after=key("c", "x"))).records) == ["e"]
        assert names((await store.list(Selection("", "pods", "root", "x"), after=key("z", "y"))).records) == []
        assert names((await store.list(Selection("", "pods", "root", "y"), after=key("z", "x"))).records) == list("ace")

    async def test_next_is_given_only_when_something_follows(self, store: Store) -> None:
        await store.commit([put(name) for name in "abc"])

        assert (await store.list(PODS, limit=2)).next == key("b")
        assert (await store.list(PODS, limit=3)).next is None
        assert (await store.list(PODS)).next is None

    async def test_what_remains_is_counted_on_request(self, store: Store) -> None:
        await store.commit([put(name) for name in "abcde"])
        first = await store.list(PODS, limit=2, count_remaining=True)
        await store.commit([Delete(key("e")), put("f"), put("g")])
        second = await store.list(PODS, limit=2, after=first.next, revision=first.revision, count_remaining=True)
        last = await store.list(PODS, limit=2, after=second.next, revision=first.revision, count_remaining=True)

        assert [first.remaining, second.remaining, last.remaining] == [3, 1, 0]
        assert (await store.list(PODS, limit=2)).remaining is None

    async def test_offsets(self, store: Store) -> None:
        await store.commit([put(f"n{n}", terms=(("odd", str(n % 2)),)) for n in range(10)])
        odd = Selection("", "pods", "root", matches=(TermMatch("odd", "1"),))

        assert names((await store.list(PODS, offset=7)).records) == ["n7", "n8", "n9"]
        assert names((await store.list(PODS, offset=7, limit=2)).records) == ["n7", "n8"]
        assert names((await store.list(odd, offset=3)).records) == ["n7", "n9"]
        assert (await store.list(PODS, offset=10)).records == []
        assert (await store.list(PODS, offset=99)).records == []

    async def test_offsets_are_refused_where_they_would_scan(self, store: Store) -> None:
        two = Selection("", "pods", matches=(TermMatch("a", "1"), TermMatch("b", "1")))
        with pytest.raises(ValueError, match="offset"):
            await store.list(two, offset=1)
        with pytest.raises(ValueError, match="offset"):
            await store.list(Selection("", "pods", matches=(TermMatch("a", "1", prefix=True),)), offset=1)

    async def test_the_future_is_refused(self, store: Store) -> None:
        now = await store.revision()

        with pytest.raises(FutureRevision) as refused:
            await store.list(PODS, revision=now + 1)

        assert (refused.value.revision, refused.value.current) == (now + 1, now)

    async def test_a_stream_is_one_revision_whatever_happens_meanwhile(self, store: Store) -> None:
        await store.commit([put(f"n{n:03}", "old") for n in range(50)])
        seen: list[Record] = []
        revisions = set()

        async for page in store.stream(PODS, chunk=7):
            assert len(page.records) <= 7
            seen += page.records
            revisions.add(page.revision)
            await store.commit([put("n049", "new"), Delete(key(f"n{len(seen):03}")) if len(seen) < 49 else put("z")])

        assert names(seen) == [f"n{n:03}" for n in range(50)]
        assert {record.value for record in seen} == {b"old"}
        assert len(revisions) == 1

    async def test_a_long_list_is_one_revision_too(self, store: Store) -> None:
        await store.commit([put(f"n{n:04}", "old") for n in range(1500)])
        reading = asyncio.create_task(store.list(PODS))
        await asyncio.sleep(0)
        await store.commit([put("n1499", "new"), Delete(key("n1498"))])

        page = await reading
        assert len(page.records) in (1499, 1500)
        assert {record.value for record in page.records[-2:]} == (
            {b"old"} if len(page.records) == 1500 else {b"old", b"new"}
        )


class TestWatch:
    async def test_tells_changes_in_order_with_the_version_before(self, store: Store) -> None:
        watch = await store.watch(PODS)
        [one] = await store.commit([put("a", "1")])
        [two, three] = await store.commit([put("a", "2"), Delete(key("a"))])

        events = [event for batch in [await watch.next()] for event in batch.events]

        assert told(events) == [
            (one.revision, False, "a", b"1"),
            (two.revision, False, "a", b"2"),
            (three.revision, True, "a", b"2"),
        ]
        assert [event.previous for event in events] == [None, one, two]

    async def test_changes_pending_come_in_one_batch(self, store: Store) -> None:
        watch = await store.watch(PODS)
        await store.commit([put("a"), put("b")])
        await store.commit([put("x", resource="services")])

        batch = await watch.next()

        assert len(batch.events) == 2
        assert batch.revision == watch.progress == await store.revision()

    async def test_waits_for_the_next_change(self, store: Store) -> None:
        watch = await store.watch(PODS)
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0.01)

        [record] = await store.commit([put("a")])

        assert [event.record for event in (await waiting).events] == [record]

    async def test_replays_what_happened_after_a_revision(self, store: Store) -> None:
        [first] = await store.commit([put("a", "1")])
        await store.commit([put("a", "2"), put("b", "3")])
        watch = await store.watch(PODS, first.revision)
        await store.commit([Delete(key("a"))])

        events: list[Event] = []
        while len(events) < 3:
            events += (await watch.next()).events

        assert [(event.record.key.name, event.record.value, event.deleted) for event in events] == [
            ("a", b"2", False),
            ("b", b"3", False),
            ("a", b"2", True),
        ]
        assert [event.previous and event.previous.value for event in events] == [b"1", None, b"2"]
        await nothing_within(watch)

    async def test_replay_reaches_back_beyond_memory(self, store_factory: Any) -> None:
        store = await store_factory(watch_window=3)
        start = await store.revision()
        for n in range(20):
            await store.commit([put(f"n{n % 4}", str(n)), put("x", resource="services")])
        watch = await store.watch(PODS, start)
        await store.commit([put("last")])

        values: list[bytes] = []
        while len(values) < 21:
            values += [event.record.value for event in (await watch.next()).events]

        assert values == [str(n).encode() for n in range(20)] + [b"v"]
        await nothing_within(watch)

    async def test_a_watch_from_now_tells_nothing_of_before(self, store: Store) -> None:
        await store.commit([put("a")])

        await nothing_within(await store.watch(PODS))
        await nothing_within(await store.watch(PODS, await store.revision()))

    @pytest.mark.parametrize(
        "selection",
        [
            Selection("", "pods", "root"),
            Selection("", "pods", "root", "default"),
            Selection("", "pods", "root", "default", "a"),
            Selection("", "pods", None, "default"),
            Selection("", "pods", None, None, "a"),
            Selection("", "pods", matches=(TermMatch("app", "web"),)),
            Selection("", "pods", matches=(TermMatch("app", "w", prefix=True),)),
            Selection("", "pods", "root", matches=(TermMatch("app", "web"), TermMatch("tier", "", prefix=True))),
        ],
    )
    @pytest.mark.parametrize("live", [True, False])
    async def test_tells_only_what_is_selected(self, store: Store, selection: Selection, live: bool) -> None:
        start = await store.revision()
        watch = await store.watch(selection) if live else None
        mine = put("a", terms=(("app", "web"), ("tier", "front")))
        other = put("b", cluster="other", namespace="other", terms=(("app", "db"),))
        await store.commit([other, put("a", resource="services"), mine, Delete(other.key)])
        watch = watch or await store.watch(selection, start)

        assert [event.record.key for event in (await watch.next()).events] == [mine.key]
        await nothing_within(watch)

    @pytest.mark.parametrize("live", [True, False])
    async def test_tells_an_object_that_stops_matching(self, store: Store, live: bool) -> None:
        web = Selection("", "pods", matches=(TermMatch("app", "web"),))
        start = await store.revision()
        watch = await store.watch(web) if live else None
        await store.commit([put("a", "in", terms=(("app", "web"),)), put("a", "out", terms=(("app", "db"),))])
        await store.commit([put("a", "far out"), put("a", "in again", terms=(("app", "web"),))])
        watch = watch or await store.watch(web, start)

        values: list[bytes] = []
        while len(values) < 3:
            values += [event.record.value for event in (await watch.next()).events]

        assert values == [b"in", b"out", b"in again"]

    async def test_progress_moves_on_past_what_is_not_selected(self, store: Store) -> None:
        watch = await store.watch(Selection("", "pods", "root", "default", "a"))
        await store.commit([put("b")])
        assert watch.progress == await store.revision()

        [record] = await store.commit([put("a")])
        assert watch.progress == record.revision - 1
        await watch.next()
        assert watch.progress == record.revision

    async def test_cancellation_loses_nothing(self, store: Store) -> None:
        watch = await store.watch(PODS)
        seen: list[str] = []
        for n in range(20):
            waiting = asyncio.create_task(watch.next())
            await asyncio.sleep(0)
            await store.commit([put(f"n{n}")])
            for _ in range(n % 4):
                await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                seen += names([event.record for event in (await waiting).events])
        if len(seen) < 20:
            seen += names([event.record for event in (await watch.next()).events])

        assert seen == [f"n{n}" for n in range(20)]

    async def test_who_falls_behind_is_cut_off_and_may_resume(self, store_factory: Any) -> None:
        store = await store_factory(watcher_limit=10)
        slow, quick = await store.watch(PODS), await store.watch(PODS)
        start = await store.revision()
        seen: list[Event] = []
        for n in range(30):
            await store.commit([put(f"n{n:02}")])
            seen += (await quick.next()).events

        assert len(seen) == 30
        with pytest.raises(SlowWatcher):
            await slow.next()
        resumed = await store.watch(PODS, start)
        again: list[Event] = []
        while len(again) < 30:
            again += (await resumed.next()).events
        assert told(again) == told(seen)

    async def test_a_closed_watch_ends_even_while_waiting(self, store: Store) -> None:
        watch = await store.watch(PODS)
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)

        watch.close()

        with pytest.raises(StoreUnavailable):
            await waiting
        await store.commit([put("a")])

    async def test_compacted_and_future_revisions_are_refused(self, store: Store) -> None:
        await store.commit([put("a"), put("b"), put("c")])
        now = await store.revision()
        await store.compact(now - 1)

        with pytest.raises(Expired) as expired:
            await store.watch(PODS, now - 2)
        with pytest.raises(FutureRevision):
            await store.watch(PODS, now + 1)

        assert expired.value.compacted == store.compacted == now - 1
        assert told((await (await store.watch(PODS, now - 1)).next()).events) == [(now, False, "c", b"v")]

    async def test_a_list_and_a_watch_from_its_revision_miss_nothing(self, store: Store) -> None:
        stop = asyncio.Event()

        async def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                await store.commit([put(f"n{n % 7}", str(n)) if n % 5 else put("gone"), put(f"m{n % 3}", str(n))])
                if n % 5 == 0:
                    await store.commit([Delete(key("gone"))])

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            for _ in range(5):
                page = await store.list(PODS)
                state = {record.key: record for record in page.records}
                watch = await store.watch(PODS, page.revision)
                for _ in range(5):
                    batch = await watch.next()
                    for event in batch.events:
                        state.pop(event.record.key, None)
                        if not event.deleted:
                            state[event.record.key] = event.record
                    now = await store.list(PODS, revision=batch.revision)
                    assert {record.key: record for record in now.records} == state
                watch.close()
            stop.set()


class TestHistoryAndCompaction:
    async def test_history_is_newest_first_across_deletions(self, store: Store) -> None:
        for change in (put("a", "1"), put("b", "x"), put("a", "2"), Delete(key("a"), final=b"bye"), put("a", "3")):
            await store.commit([change])

        events = await store.history(key("a"))

        assert [(event.deleted, event.record.value) for event in events] == [
            (False, b"3"),
            (True, b"bye"),
            (False, b"2"),
            (False, b"1"),
        ]
        assert [event.previous and event.previous.value for event in events] == [None, b"2", b"1", None]
        assert told(await store.history(key("a"), limit=2)) == told(events[:2])
        assert await store.history(key("never")) == []

    async def test_compaction_keeps_what_is_current(self, store: Store) -> None:
        await store.commit(
            [put("a", "1", terms=(("x", "1"),)), put("b"), put("a", "2", terms=(("x", "2"),)), Delete(key("b"))]
        )
        before = (await store.list(PODS)).records

        await store.compact(await store.revision())

        assert (await store.list(PODS)).records == before
        assert names((await store.list(Selection("", "pods", matches=(TermMatch("x", "2"),)))).records) == ["a"]
        assert [event.record.value for event in await store.history(key("a"))] == [b"2"]
        assert await store.history(key("b")) == []

    async def test_compacted_revisions_expire(self, store: Store) -> None:
        for n in range(5):
            await store.commit([put("a", str(n))])
        now = await store.revision()

        await store.compact(now - 2)

        assert [r.value for r in (await store.list(PODS, revision=now - 2)).records] == [b"2"]
        with pytest.raises(Expired) as expired:
            await store.list(PODS, revision=now - 3)
        assert (expired.value.revision, expired.value.compacted) == (now - 3, now - 2)
        await store.compact(now - 4)
        assert store.compacted == now - 2
        with pytest.raises(FutureRevision):
            await store.compact(now + 1)

    async def test_retained_history_outlives_compaction(self, store_factory: Any) -> None:
        store = await store_factory(history=lambda _group, resource: 2 if resource == "pods" else 0)
        for n in range(6):
            await store.commit([put("a", str(n)), put("a", str(n), resource="services")])
            await store.compact(await store.revision())

        assert [event.record.value for event in await store.history(key("a"))] == [b"5", b"4", b"3"]
        assert [event.record.value for event in await store.history(key("a", resource="services"))] == [b"5"]

        await store.commit([Delete(key("a"))])
        assert len(await store.history(key("a"))) == 4
        await store.compact(await store.revision())
        assert await store.history(key("a")) == []

    async def test_the_past_is_forgotten_in_time(self, store_factory: Any, clock: Any) -> None:
        from fleetplane.store.compaction import CompactionPolicy

        policy = CompactionPolicy(seconds=300, min_events=10, max_events=100_000)
        store = await store_factory(environment=clock, compaction=policy)
        for n in range(400):
            await store.commit([put("a", str(n))])
        early = await store.revision()
        assert store.compacted < early - 300
        clock.seconds = 301
        for n in range(700):
            await store.commit([put("a", str(n))])
        clock.seconds = 602
        for n in range(50):
            await store.commit([put("a", str(n))])

        assert early < store.compacted < await store.revision() - 10
        assert len((await store.list(PODS)).records) == 1

    async def test_the_past_never_outgrows_its_limit(self, store_factory: Any) -> None:
        from fleetplane.store.compaction import CompactionPolicy

        store = await store_factory(compaction=CompactionPolicy(seconds=1e9, min_events=10, max_events=100))
        for n in range(1500):
            await store.commit([put("a", str(n))])

        assert len(await store.history(key("a"), limit=10_000)) < 500


class TestClusters:
    async def test_dropping_a_cluster_leaves_the_others(self, store: Store) -> None:
        claim = (Claim("ip", "1"),)
        await store.commit([put(f"n{n}", cluster="doomed", claims=claim if n == 0 else ()) for n in range(5)])
        await store.commit([put("s", cluster="doomed", resource="services"), put("kept", claims=claim)])
        watch = await store.watch(PODS)

        assert await store.drop_cluster("doomed") == 6

        assert names((await store.list(PODS)).records) == ["kept"]
        assert await store.count(Selection("", "services")) == 0
        assert {(event.deleted, event.record.key.cluster) for event in (await watch.next()).events} == {
            (True, "doomed")
        }
        await store.commit([put("new", cluster="doomed", claims=claim)])
        assert await store.drop_cluster("never") == 0

    async def test_its_past_goes_with_compaction(self, store: Store) -> None:
        await store.commit([put("a", cluster="doomed"), put("a", "2", cluster="doomed")])
        await store.drop_cluster("doomed")
        await store.compact(await store.revision())

        assert await store.history(key("a", cluster="doomed")) == []


class TestClosing:
    async def test_a_closed_store_says_so(self, store: Store) -> None:
        watch = await store.watch(PODS)
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        await store.close()
        await store.close()

        for request in (store.get(key("a")), store.list(PODS), store.commit([put("a")]), waiting, store.watch(PODS)):
            with pytest.raises(StoreUnavailable):
                await request

    async def test_what_was_accepted_is_finished_first(self, store: Store) -> None:
        committing = [asyncio.create_task(store.commit([put(f"n{n}")])) for n in range(10)]
        await asyncio.sleep(0)
        await store.close()

        assert [len(await one) for one in committing] == [1] * 10

    async def test_everything_is_there_again(self, store_factory: Any) -> None:
        if not store_factory.persistent:
            pytest.skip("this engine keeps nothing")
        store = await store_factory()
        await store.commit([put("a", "1", terms=(("x", "1"),), claims=(Claim("ip", "1"),)), put("b"), put("c")])
        [last] = await store.commit([put("a", "2", terms=(("x", "2"),), claims=(Claim("ip", "1"),))])
        await store.compact(last.revision - 2)
        await store.close()

        store = await store_factory()

        assert await store.get(key("a")) == last
        assert await store.revision() == last.revision
        assert store.compacted == last.revision - 2
        assert names((await store.list(Selection("", "pods", matches=(TermMatch("x", "2"),)))).records) == ["a"]
        assert [e.record.value for e in await store.history(key("a"))] == [b"2", b"1"]
        watch = await store.watch(PODS, last.revision - 1)
        assert told((await watch.next()).events) == [(last.revision, False, "a", b"2")]
        with pytest.raises(ClaimTaken):
            await store.commit([put("d", claims=(Claim("ip", "1"),))])

    async def test_revisions_rise_even_if_nothing_is_left_of_the_last(self, store_factory: Any) -> None:
        if not store_factory.persistent:
            pytest.skip("this engine keeps nothing")
        store = await store_factory()
        await store.commit([put("a"), Delete(key("a"))])
        last = await store.revision()
        await store.compact(last)
        await store.close()

        store = await store_factory()

        assert await store.revision() == last
        [record] = await store.commit([put("b")])
        assert record.revision > last
