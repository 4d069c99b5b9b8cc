"""The master key is found, made once, kept private, and never made anew over sealed values."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.secrets.master import find_keys, new_key, write_keys


def refused(data_dir: Path, environ: dict[str, str], *, sealed: bool = False) -> DicodeError:
    with pytest.raises(DicodeError) as caught:
        find_keys(data_dir, environ, anything_sealed=sealed)
    assert caught.value.code is Code.SECRETS_LOCKED
    assert caught.value.hint
    return caught.value


def test_a_new_data_dir_gets_a_key_that_stays(tmp_path: Path) -> None:
    first = find_keys(tmp_path, {}, anything_sealed=False)
    file = tmp_path / "master.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert find_keys(tmp_path, {}, anything_sealed=True).active == first.active
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_sealed_values_without_their_key_stop_the_server_and_make_no_new_one(
    tmp_path: Path,
) -> None:
    assert "gone" in refused(tmp_path, {}, sealed=True).message
    assert list(tmp_path.iterdir()) == []


def test_the_variable_is_taken_and_no_child_inherits_it(tmp_path: Path) -> None:
    key = new_key()
    environ = {"DICODE_MASTER_KEY": key.text(), "PATH": "/bin"}
    assert find_keys(tmp_path, environ, anything_sealed=True).active == key
    assert environ == {"PATH": "/bin"}
    assert list(tmp_path.iterdir()) == []


def test_a_credential_of_systemd_goes_before_all_others(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    key = new_key()
    (credentials / "dicode-master").write_text(key.text())
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "DICODE_MASTER_KEY": new_key().text()}
    assert find_keys(tmp_path, environ, anything_sealed=False).active == key
    assert "DICODE_MASTER_KEY" not in environ


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    write_keys(file, [new_key()])
    file.chmod(0o640)
    error = refused(tmp_path, {})
    assert "chmod 600" in (error.hint or "")
    assert "640" in error.message


def test_a_link_is_no_key(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    write_keys(real, [new_key()])
    (tmp_path / "master.key").symlink_to(real)
    refused(tmp_path, {})
    (tmp_path / "master.key").unlink()
    (tmp_path / "master.key").symlink_to(tmp_path / "nowhere")
    refused(tmp_path, {})


@pytest.mark.parametrize("text", ["", "\n\n", "short", "A" * 43, "päss"])
def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "master.key"
    file.touch(mode=0o600)
    file.write_text(text)
    error = refused(tmp_path, {})
    assert str(file) in error.message
    if text.strip():
        assert text not in error.message
    assert file.read_text() == text


def test_older_keys_stand_below_the_active_one(tmp_path: Path) -> None:
    new, old = new_key(), new_key()
    write_keys(tmp_path / "master.key", [new, old])
    ring = find_keys(tmp_path, {}, anything_sealed=True)
    assert list(ring) == [new, old]
    assert ring.get(old.id) == old


def test_a_failed_write_leaves_the_old_key(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    write_keys(file, [new_key()])
    before = file.read_bytes()
    (tmp_path / f".master.key.{os.getpid()}.new").mkdir()
    with pytest.raises((DicodeError, OSError)):
        write_keys(file, [new_key()])
    assert file.read_bytes() == before
