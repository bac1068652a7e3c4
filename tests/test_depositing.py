"""What a study leaves can be kept at a URL, whole or as it was, and read from there by whoever has tuner."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from command import call, write

import tuner
from tuner.depositing import KEPT, deposit, fetched, masked
from tuner.errors import StorageError, UsageError


@pytest.mark.slow
def test_what_a_study_leaves_is_read_from_a_url_as_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    for url in (f"file://{tmp_path}/shared/deep", "memory://bucket/studies"):
        ran = call(capsys, "run", "small.yaml", "--artifacts", url, "-q")
        assert ran.code == 0, ran.err
        system, path = fsspec.core.url_to_fs(url)
        there = {name.rpartition("/")[2] for name in system.ls(f"{path}/small", detail=False)}
        assert there == set(KEPT)
        for name in KEPT:
            assert system.cat_file(f"{path}/small/{name}") == (tmp_path / "studies" / "small" / name).read_bytes()
        rows = np.random.default_rng(0).random((5, 13))
        here, far = tuner.load_best("small"), tuner.load_best(f"{url}/small")
        assert (here.params, here.trial) == (far.params, far.trial)
        np.testing.assert_array_equal(here.predict_proba(rows), far.predict_proba(rows))
    shutil.rmtree(tmp_path / "studies")
    said = call(capsys, "predict", f"file://{tmp_path}/shared/deep/small", "sklearn:wine")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 179
    assert call(capsys, "export", "memory://bucket/studies/small", "out").code == 0


def test_a_place_that_isnt_there_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    ran = call(capsys, "run", "small.yaml", "--artifacts", "nowhere://me:secret@bucket", "-q")
    assert (ran.code, ran.out) == (2, "")
    assert "secret" not in ran.err
    assert not (tmp_path / "studies").exists()
    with pytest.raises(UsageError, match="holds no best configuration"):
        fetched("memory://bucket/none")
    assert masked("ftp://me:secret@host/a") == "ftp://***@host/a"


def test_what_cant_be_copied_is_told_and_is_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    write(folder / "best.yaml", "study: small")
    write(tmp_path / "file", "")
    with pytest.raises(StorageError, match="copies it again"):
        deposit(folder, f"file://{tmp_path}/file/deep")
    assert (folder / "best.yaml").read_text() == "study: small"


def test_a_copy_that_breaks_off_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "small"
    write(folder / "best.yaml", "old")
    url = f"file://{tmp_path}/shared"
    deposit(folder, url)
    write(folder / "best.yaml", "new")

    class Breaks(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        deposit(Breaks(folder), url)
    assert (tmp_path / "shared" / "small" / "best.yaml").read_text() == "old"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that speaks S3, with one bucket: of `pip install s3fs 'moto[server]'`, which the set-up leaves out."""
    pytest.importorskip("s3fs", reason="s3fs isn't installed")
    server = pytest.importorskip("moto.server", reason="moto isn't installed").ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    yield system
    server.stop()


@pytest.mark.slow
def test_a_store_of_objects_keeps_what_a_study_leaves_and_makes_no_bucket(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.yaml")
    ran = call(capsys, "run", "small.yaml", "--artifacts", "s3://bukcet/studies", "-q")
    assert ran.code == 2
    assert "there is no 'bukcet' there" in ran.err
    assert not (tmp_path / "studies").exists()
    assert call(capsys, "run", "small.yaml", "--artifacts", "s3://bucket/studies", "-q").code == 0
    assert {name.rpartition("/")[2] for name in s3.find("bucket/studies/small")} == set(KEPT)
    rows = np.random.default_rng(0).random((5, 13))
    here, far = tuner.load_best("small"), tuner.load_best("s3://bucket/studies/small")
    np.testing.assert_array_equal(here.predict_proba(rows), far.predict_proba(rows))
