"""The parts of the agent that need no VM: its frames, its log, whom a container is and where a path leads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.node.log_files import parse_line
from fleetplane.node.runtime import Mount, RuntimeFailure
from fleetplane.operators.peerpods.podvm import files
from fleetplane.operators.peerpods.podvm.guest import linux
from fleetplane.operators.peerpods.podvm.guest.confinement import DEFAULT_CAPABILITIES, Spec, identity, resolved
from fleetplane.operators.peerpods.podvm.guest.processes import LINE_BYTES, LOG_BYTES, Log
from fleetplane.operators.peerpods.podvm.guest.wire import BLOB_BYTES, Damaged, Unframer, frame

HEADS = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.booleans(), max_size=4)


@given(st.lists(st.tuples(HEADS, st.binary(max_size=200)), max_size=5), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[dict[str, object], bytes]], cut: int
) -> None:
    stream = b"".join(frame(head, blob) for head, blob in sent)
    unframer = Unframer()

    found = [one for at in range(0, len(stream), cut) for one in unframer.feed(stream[at : at + cut])]

    assert found == sent


@given(st.binary(max_size=300))
def test_nonsense_is_refused_or_waited_for_and_never_anything_else(data: bytes) -> None:
    try:
        Unframer().feed(data)
    except Damaged:
        return


def test_a_frame_that_claims_too_much_is_refused_before_it_is_kept() -> None:
    with pytest.raises(Damaged):
        Unframer().feed(b"\xff\xff\xff\xff")
    with pytest.raises(Damaged):
        frame({}, bytes(BLOB_BYTES + 1))
    with pytest.raises(Damaged):
        Unframer().feed(b"\0\0\0\x05\0\0\0\x01[")


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_a_log_says_what_was_written_line_by_line(pieces: list[bytes]) -> None:
    log = Log(now=lambda: 1.5)
    for piece in pieces:
        log.add("stdout", piece)
    log.finish()

    _, data = log.read(0, LOG_BYTES)
    lines = [parse_line(raw) for raw in data.split(b"\n")[:-1]]

    assert b"".join(line.data for line in lines if line is not None) == b"".join(pieces)


def test_a_log_without_end_keeps_its_newest_whole_lines() -> None:
    log = Log(now=lambda: 0.0)
    for number in range(400):
        log.add("stdout", str(number).encode() * 5000 + b"\n")

    begin, data = log.read(0, 2 * LOG_BYTES)

    assert begin > 0
    assert len(data) <= LOG_BYTES
    assert data.startswith(b"1970-01-01T00:00:00.")
    assert b"399399" in data
    assert max(map(len, data.split(b"\n"))) < LINE_BYTES + 100


def test_links_of_an_image_never_lead_out_of_its_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "abs").symlink_to("/etc")
    (root / "up").symlink_to("../../../etc")
    (root / "loop").symlink_to("loop")

    assert resolved(str(root), "/abs/x") == f"{root}/etc/x"
    assert resolved(str(root), "/up/passwd") == f"{root}/etc/passwd"
    assert resolved(str(root), "../../a/./b") == f"{root}/a/b"
    with pytest.raises(OSError, match="too many links"):
        resolved(str(root), "/loop")


def test_who_a_container_is_comes_from_its_own_files(tmp_path: Path) -> None:
    people, groups = tmp_path / "passwd", tmp_path / "group"
    people.write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:100::/srv:/bin/sh\nbroken\n")
    groups.write_text("staff:x:50:app,other\nnobody:x:bad:app\n")

    assert identity("app", str(people), str(groups)) == (1000, 100, [50], "/srv")
    assert identity("app:staff", str(people), str(groups))[1] == 50
    assert identity("4711:12", str(people), str(groups)) == (4711, 12, [], "/")
    assert identity("", str(people), str(groups))[:2] == (0, 0)
    with pytest.raises(ValueError, match="no user ghost"):
        identity("ghost", str(people), str(groups))


def test_capabilities_are_the_usual_ones_with_what_is_added_and_without_what_is_dropped() -> None:
    assert Spec({"argv": ["x"]}).capabilities == DEFAULT_CAPABILITIES
    assert Spec({"argv": ["x"], "drop": ["ALL"], "add": ["CAP_NET_RAW"]}).capabilities == {"NET_RAW"}
    assert Spec({"argv": ["x"], "privileged": True}).capabilities == set(linux.CAPABILITIES)
    with pytest.raises(ValueError, match="what to run"):
        Spec({"argv": []})


def test_a_volume_is_bounded_and_only_what_is_the_pods_own_goes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "big").write_bytes(bytes(5000))

    assert files.copied(Mount(str(own), "/x"), [own]).guest_source.startswith(files.GUEST_VOLUMES)
    with pytest.raises(RuntimeFailure, match="without any of the node's files"):
        files.copied(Mount(str(own / ".." / ".."), "/x"), [own])
    monkeypatch.setattr(files, "LARGEST_VOLUME", 1000)
    with pytest.raises(RuntimeFailure, match="cannot be handed into"):
        files.packed(own)
