"""Who makes a request."""

from __future__ import annotations

from fleetplane.model.user import UserInfo, anonymous, service_account_user, with_groups


def test_a_user_survives_its_json_form() -> None:
    user = UserInfo("eve", "7", ("a", "b"), {"scopes": ("x", "y")})

    assert UserInfo.from_object(user.to_object()) == user


def test_a_service_account_is_recognised_with_its_groups() -> None:
    user = service_account_user("fleet", "robot")

    assert user.service_account() == ("fleet", "robot")
    assert user.in_group("system:serviceaccounts:fleet")


def test_a_plain_user_is_no_service_account() -> None:
    assert UserInfo("system:serviceaccount:broken").service_account() is None
    assert anonymous().service_account() is None


def test_groups_are_added_once_and_in_order() -> None:
    assert with_groups(UserInfo("eve", groups=("a",)), ["b", "a"]).groups == ("a", "b")
