"""What a machine lacks, from metadata; cutting and joining; a whole bundle of wheels made here, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.cli import MISUSED
from azr.experiments.gpu import bundle, packages, pieces, unpack
from azr.experiments.gpu.packages import Target, missing, pins, unmet
from common.errors import ConfigError, PartFailed

TARGET = Target("3.12", "manylinux_2_28_x86_64")


def made(folder: Path, name: str, version: str, *needs: str, tag: str = "py3-none-any", code: str = "") -> Path:
    """A wheel with a module and, in its data, a program."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": code,
        f"{name}/tool": "#!/bin/sh\necho tool",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{file},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = (0o100755 if file.endswith("tool") else 0o100644) << 16
            archive.writestr(entry, text)
    return path


def test_pins_are_read_however_they_are_written() -> None:
    assert pins("Torch==2.11.0,triton  # there\n\n# nothing\nruamel.yaml==1\n") == {
        "torch": "2.11.0",
        "triton": "",
        "ruamel-yaml": "1",
    }


def test_a_target_knows_every_tag_that_runs_there() -> None:
    tags = Target("3.12", "manylinux_2_17_aarch64").platforms
    assert tags[:2] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert tags[-2:] == ["manylinux_2_5_aarch64", "manylinux1_aarch64"]
    assert "manylinux_2_18_aarch64" not in tags
    for python, platform in (("3", "manylinux_2_17_x86_64"), ("3.12", "linux_x86_64")):
        with pytest.raises(ConfigError, match="write it as"):
            Target(python, platform)


def test_only_what_is_not_there_is_missing() -> None:
    assert missing({"a": "1", "b": "2", "c": "3"}, {"b": "9", "c": "", "z": "1"}) == {"a": "1"}


def test_open_needs_are_told_by_name_version_and_machine(tmp_path: Path) -> None:
    wheels = [
        made(tmp_path, "one", "1.0", "two>=2", "torch==2.11.0", "numba==0.65.0", "colorama; sys_platform=='win32'"),
        made(tmp_path, "two", "1.5", "gone", "extra-only; extra == 'more'", "six"),
    ]
    assert unmet(wheels, TARGET, {"torch": "2.11.0", "numba": "0.66.0", "six": ""}) == [
        "one 1.0 needs numba==0.65.0, and there is 0.66.0",
        "one 1.0 needs two>=2, and there is 1.5",
        "two 1.5 needs gone, which is not there",
    ]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_pieces_join_to_what_was_cut(tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "whole").write_bytes(data)
    with (folder / "whole").open("rb") as whole:
        rows = list(pieces.cut(whole, folder, size))
    assert all(row["size"] == size for row in rows[:-1]) and len(rows) == -(-len(data) // size)
    assert bytes(unpack.join(folder, rows)) == data


def test_parts_are_cut_between_files(tmp_path: Path) -> None:
    for name, size in (("a", 6), ("b", 4), ("c", 1), ("d/e", 30), ("f", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    parts = [[str(file.relative_to(tmp_path)) for file in part] for part in pieces.divided(tmp_path, 10)]
    assert parts == [["a", "b"], ["c"], ["d/e"], ["f"]]


def test_a_bundle_of_local_wheels_is_made_carried_and_laid_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the requirements to `import` on the other side; pip and uv see a folder of wheels and no index."""
    wheels = tmp_path / "index"
    code = "import base_there\n" + "".join(f"x{i} = {i * i}\n" for i in range(3000))
    made(wheels, "wanted", "1.2", "helper>=1", "base_there==1.0", "heavy", code=code)
    made(wheels, "helper", "1.0", code="unused = 1")
    made(wheels, "heavy", "1.0", "only_heavy")
    made(wheels, "only_heavy", "1.0")
    made(wheels, "base_there", "2.0", code="version = 2")
    made(wheels, "beside", "3.0", code="beside = 3")
    (tmp_path / "arguments").write_text(
        "--python 3.11 --have base-there==2.0  # newer than wanted asks for\n--beside beside==3.0 --without heavy\n"
        "--drop helper/tool\n--drop bin/*\n--piece-mb 0.002\n"
    )
    offline = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels)}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    out = tmp_path / "out"
    command = [sys.executable, "-m", "azr.experiments.gpu.bundle", str(out), f"@{tmp_path / 'arguments'}", "wanted"]
    done = subprocess.run(command, env={**os.environ, **offline, **pip}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["packages"] == [f"{n}-py3-none-any.whl" for n in ("beside-3.0", "helper-1.0", "wanted-1.2")]
    assert manifest["open"] == [
        "wanted 1.2 needs base_there==1.0, and there is 2.0",
        "wanted 1.2 needs heavy, which is not there",
    ]
    assert len(manifest["pieces"]) > 1 and all(piece["size"] <= 2097 for piece in manifest["pieces"])

    there = tmp_path / "there"
    there.mkdir()
    for name in ("manifest.json", "unpack.py", *(piece["name"] for piece in manifest["pieces"])):
        (there / name).write_bytes((out / name).read_bytes())
    layout = [sys.executable, "-I", str(there / "unpack.py"), str(tmp_path / "site")]
    (there / "piece-001").write_bytes(b"rotten")
    refused = subprocess.run(layout, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "piece-001 is damaged" in refused.stderr
    assert not (tmp_path / "site").exists()
    (there / "piece-001").write_bytes((out / "piece-001").read_bytes())
    subprocess.run(layout, check=True, stdout=subprocess.DEVNULL)
    site = tmp_path / "site"
    assert {path.name for path in site.iterdir() if path.is_dir() and "-" not in path.name} == {
        *("beside", "helper", "wanted")
    }
    assert os.access(site / "wanted" / "tool", os.X_OK) and not (site / "helper" / "tool").exists()
    (site / "base_there.py").write_text("")
    shown = subprocess.run(
        [sys.executable, "-c", "import wanted, helper, beside; print(wanted.x2999, beside.beside)"],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == [str(2999 * 2999), "3"]

    assert bundle.main([str(out), "wanted"]) == MISUSED  # a finished bundle is not overwritten
    assert "holds a bundle" in capsys.readouterr().err


def test_code_compiled_here_is_not_taken_for_another_machine(tmp_path: Path) -> None:
    made(tmp_path / "mine==1.0", "mine", "1.0", tag="cp39-cp39-linux_riscv64")
    with pytest.raises(PartFailed, match="not for manylinux_2_28_x86_64"):
        bundle.wheel("mine==1.0", TARGET, tmp_path)


def test_requirements_that_exclude_each_other_are_an_answer_to_the_user(tmp_path: Path) -> None:
    path = made(tmp_path, "a", "1.0", "b==1.0")
    other = made(tmp_path, "b", "2.0")
    with pytest.raises(PartFailed, match="cannot be met together"):
        packages.resolve([f"a @ {path.as_uri()}", f"b @ {other.as_uri()}"], TARGET, {}, [])
