from __future__ import annotations

from collections.abc import Callable

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

PODS = "/api/v1/namespaces/default/pods"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_a_pod_runs_as_the_default_account_with_a_token(api: TestServer, pod: Callable[..., Object]) -> None:
    code, made = await api.call("POST", PODS, pod())

    assert code == 201
    spec = made["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-") and len(volume["name"]) == len("kube-api-access-") + 5
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
                    ]
                }
            },
        ],
    }
    assert spec["containers"][0]["volumeMounts"] == [
        {"mountPath": TOKEN_PATH, "name": volume["name"], "readOnly": True}
    ]


async def test_the_default_account_of_a_new_namespace_is_there_at_once(
    api: TestServer, pod: Callable[..., Object]
) -> None:
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "fresh"}})

    code, _ = await api.call("POST", "/api/v1/namespaces/fresh/pods", pod())

    assert code == 201
    code, account = await api.call("GET", "/api/v1/namespaces/fresh/serviceaccounts/default")
    assert code == 200
    assert account["metadata"]["uid"]


async def test_a_dry_run_makes_no_account(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "fresh"}})

    code, _ = await api.call("POST", "/api/v1/namespaces/fresh/pods", pod(), query={"dryRun": "All"})

    assert code == 201
    code, _ = await api.call("GET", "/api/v1/namespaces/fresh/serviceaccounts/default")
    assert code == 404


async def test_an_account_that_is_missing_is_told_by_name(api: TestServer, pod: Callable[..., Object]) -> None:
    code, status = await api.call("POST", PODS, pod(serviceAccountName="robot"))

    assert code == 403
    assert status["message"] == (
        'pods "web" is forbidden: error looking up service account default/robot: serviceaccount "robot" not found'
    )


async def test_a_generated_pod_is_refused_by_its_prefix(api: TestServer, pod: Callable[..., Object]) -> None:
    _, status = await api.call("POST", PODS, pod("web-", serviceAccountName="robot"))

    assert status["message"].startswith('pods "web-" is forbidden: ')


async def test_pull_secrets_of_the_account_are_the_pods(api: TestServer, pod: Callable[..., Object]) -> None:
    account = {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "registry"}]}
    await api.call("POST", ACCOUNTS, account)

    _, plain = await api.call("POST", PODS, pod("a", serviceAccountName="robot"))
    _, own = await api.call("POST", PODS, pod("b", serviceAccountName="robot", imagePullSecrets=[{"name": "mine"}]))

    assert plain["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert own["spec"]["imagePullSecrets"] == [{"name": "mine"}]


async def test_the_pods_word_on_mounting_counts_before_the_accounts(
    api: TestServer, pod: Callable[..., Object]
) -> None:
    await api.call("POST", ACCOUNTS, {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False})

    _, silent = await api.call("POST", PODS, pod("a", serviceAccountName="quiet"))
    _, insisting = await api.call("POST", PODS, pod("b", serviceAccountName="quiet", automountServiceAccountToken=True))

    assert "volumes" not in silent["spec"]
    assert len(insisting["spec"]["volumes"]) == 1


async def test_what_is_mounted_in_the_place_of_the_token_stays(api: TestServer, pod: Callable[..., Object]) -> None:
    wanted = pod(volumes=[{"name": "mine", "emptyDir": {}}])
    wanted["spec"]["containers"][0]["volumeMounts"] = [{"name": "mine", "mountPath": TOKEN_PATH}]

    _, made = await api.call("POST", PODS, wanted)

    assert [one["name"] for one in made["spec"]["volumes"]] == ["mine"]


async def test_an_account_may_limit_the_secrets_of_its_pods(api: TestServer, pod: Callable[..., Object]) -> None:
    account = {
        "metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "known"}],
    }
    await api.call("POST", ACCOUNTS, account)
    volumes = [{"name": "s", "secret": {"secretName": "other"}}]

    code, status = await api.call("POST", PODS, pod(serviceAccountName="strict", volumes=volumes))

    assert code == 403
    assert (
        'volume with secret.secretName="other" is not allowed because service account strict '
        "does not reference that secret"
    ) in status["message"]


async def test_nonsense_in_a_pod_is_told_as_such(api: TestServer) -> None:
    for spec in ({"containers": 5}, {"containers": [3]}, {"containers": [{"name": "c", "volumeMounts": "x"}]}):
        code, status = await api.call("POST", PODS, {"metadata": {"name": "bad"}, "spec": spec})
        assert code in (400, 422), status
