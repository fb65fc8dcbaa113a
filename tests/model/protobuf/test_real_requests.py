"""Bodies that kubectl 1.33 sent for ``kubectl create …``."""

from __future__ import annotations

from fleetplane.model.protobuf import decode

DEPLOYMENT = bytes.fromhex(
    "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412ba010a1b0a016412001a0022002a003200380042005a"
    "080a03617070120164128c010800120a0a080a036170701201641a740a1a0a0012001a0022002a003200380042005a080a03"
    "617070120164125612380a056e67696e7812056e67696e781a05736c6565701a01312a00320a0a001000185022002a004200"
    "6a007200800100880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a002800"
    "38001a0c0800100018002000280038001a002200"
)
BUDGET = bytes.fromhex(
    "6b3873000a200a09706f6c6963792f76311213506f6444697372757074696f6e42756467657412360a110a017012001a0022"
    "002a0032003800420012150a09080110001a0335302512080a060a01611201621a0a080018002000280030001a002200"
)
PRIORITY = bytes.fromhex(
    "6b3873000a250a147363686564756c696e672e6b38732e696f2f7631120d5072696f72697479436c61737312390a120a0270"
    "6312001a0022002a0032003800420010fbffffffffffffffff01180022002a14507265656d70744c6f7765725072696f7269"
    "74791a002200"
)


def test_create_deployment() -> None:
    container = {
        "name": "nginx",
        "image": "nginx",
        "command": ["sleep", "1"],
        "ports": [{"containerPort": 80}],
        "resources": {},
    }
    assert decode(DEPLOYMENT) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [container]}},
            "strategy": {},
        },
        "status": {},
    }


def test_create_poddisruptionbudget() -> None:
    assert decode(BUDGET)["spec"] == {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}


def test_create_priorityclass_with_a_negative_value() -> None:
    assert decode(PRIORITY)["value"] == -5
