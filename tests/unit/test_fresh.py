"""What tests/fresh.py hands in to a Debian made from nothing."""

from pathlib import Path

from tests import fresh


def test_settings_name_what_is_handed_in(tmp_path: Path) -> None:
    wheels, bundle = tmp_path / "wheels", tmp_path / "wheels.pem"
    wheels.mkdir()
    (wheels / "one.whl").touch()
    bundle.touch()
    config = (
        f"[global]\nfind-links = {wheels}\ncert = {bundle}\nextra-index-url = file://{wheels}/one.whl https://a/b\n"
    )
    assert fresh.named_paths([f"file://{wheels}/simple/"]) == [str(wheels)]
    paths = fresh.named_paths([config, "/nowhere /", "https://somewhere/etc/passwd"])
    assert paths == [str(wheels), str(bundle)]
    assert fresh.moved(config, paths) == (
        f"[global]\nfind-links = /handed-in{wheels}\ncert = /handed-in{bundle}\n"
        f"extra-index-url = file:///handed-in{wheels}/one.whl https://a/b\n"
    )


def test_settings_of_the_environment() -> None:
    taken = ("http_proxy", "HTTPS_PROXY", "PIP_INDEX_URL", "SSL_CERT_FILE")
    names = (*taken, "PATH", "PYTHONPATH", "HOME", "GIT_DIR")
    assert tuple(name for name in names if fresh.SETTINGS.fullmatch(name)) == taken


def test_closing_line() -> None:
    line = "======= 1 failed, 2575 passed, 3 skipped in 2710.11s (0:45:10) ======="
    found = fresh.CLOSING_LINE.fullmatch(line)
    assert found and found[1] == "1 failed, 2575 passed, 3 skipped in 2710.11s (0:45:10)"
    assert not fresh.CLOSING_LINE.fullmatch("======= test session starts =======")
