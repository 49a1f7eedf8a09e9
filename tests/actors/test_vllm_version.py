import pytest

from actors import vllm_version
from common.errors import PartFailed


@pytest.mark.parametrize("version", ["0.26.0", "0.27.1", "0.29.0rc1", "0.32.0+cpu", "0.33.0"])
def test_known_versions_pass(version: str) -> None:
    vllm_version.check(version)


@pytest.mark.parametrize(
    ("version", "how"), [("0.25.1", "older"), ("0.8.5.post1", "older"), ("0.34.0", "newer"), ("1.0", "newer")]
)
def test_others_are_refused_by_name_with_those_that_work(version: str, how: str) -> None:
    with pytest.raises(PartFailed, match=rf"vLLM {version} is {how}.*(\n.*)*0\.26 to 0\.33"):
        vllm_version.check(version)


def test_the_installed_one_is_known() -> None:
    vllm_version.check(vllm_version.installed())
