"""A foreign package with one of the project's generic names is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from azr.shadow import NAMES, ROOT, imported_from, require_own_packages
from common.errors import PartFailed
from tests.project import PACKAGES


def project(folder: Path) -> Path:
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    return folder


def distribution(site: Path, name: str, *, package: str, listed: bool = True) -> None:
    """Install a distribution the way pip leaves it: a package folder and a .dist-info beside it."""
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    info = site / f"{name}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
    if listed:
        (info / "RECORD").write_text(f"{package}/__init__.py,,\n{name}-2.1.dist-info/METADATA,,\n")
    else:
        (info / "top_level.txt").write_text(f"{package}\n")


def test_the_names_are_those_of_the_packages() -> None:
    assert set(NAMES) == set(PACKAGES)


def test_this_environment_is_clean() -> None:
    require_own_packages()


def test_the_project_alone_is_accepted_however_its_root_is_spelled(tmp_path: Path) -> None:
    root = project(tmp_path / "root")
    require_own_packages(root, [str(root), f"{root}/../root", str(tmp_path / "absent")], lambda name: root / name)


@pytest.mark.parametrize("listed", [True, False])
def test_a_distribution_of_the_same_name_is_the_culprit(tmp_path: Path, listed: bool) -> None:
    root, site = project(tmp_path / "root"), tmp_path / "site"
    distribution(site, "harmless", package="unrelated")
    distribution(site, "nice-executor", package="executor", listed=listed)
    with pytest.raises(PartFailed) as caught:
        require_own_packages(root, [str(root), str(site)], lambda name: root / name)
    assert "nice-executor 2.1" in str(caught.value) and "'executor'" in caught.value.what
    assert "uninstall nice-executor" in caught.value.hint


def test_a_module_without_a_distribution_is_named_by_its_path(tmp_path: Path) -> None:
    root, site = project(tmp_path / "root"), tmp_path / "site"
    site.mkdir()
    (site / "common.py").touch()
    with pytest.raises(PartFailed, match=r"common\.py"):
        require_own_packages(root, [str(site)], lambda name: root / name)


def test_a_namespace_folder_hides_nothing(tmp_path: Path) -> None:
    root = project(tmp_path / "root")
    (tmp_path / "elsewhere" / "configs").mkdir(parents=True)
    require_own_packages(root, [str(tmp_path / "elsewhere")], lambda name: root / name)


def test_an_import_that_yields_another_copy_is_refused(tmp_path: Path) -> None:
    root, other = project(tmp_path / "root"), project(tmp_path / "other")
    with pytest.raises(PartFailed, match="other"):
        require_own_packages(root, [str(root)], lambda name: other / name)


def test_an_import_is_located_without_being_made() -> None:
    assert imported_from("common") == ROOT / "common"
    assert imported_from("no_such_package") is None
