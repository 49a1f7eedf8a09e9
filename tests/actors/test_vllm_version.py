from importlib.util import find_spec
from pathlib import Path

import pytest

from actors import vllm_version
from common.errors import PartFailed
from tests.actors.vllm_names import lacks


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


def test_the_installed_one_has_every_name_that_is_used() -> None:
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    assert lacks(Path(spec.origin).parent) == []


def test_a_name_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "v1" / "engine"
    folder.mkdir(parents=True)
    (folder / "detokenizer.py").write_text("class IncrementalDetokenizer:\n    def renamed(self): ...\n")
    (folder / "exceptions.py").write_text("class EngineDeadError(Exception): ...\n")
    (folder / "llm_engine.py").write_text("class LLMEngine:\n    def add_request(self, request_id, prompt): ...\n")
    lost = lacks(tmp_path)
    assert "v1/engine/detokenizer.py: IncrementalDetokenizer.num_output_tokens" in lost
    assert "v1/engine/exceptions.py: EngineGenerateError" in lost
    assert "v1/engine/exceptions.py: EngineDeadError" not in lost
    assert "v1/engine/llm_engine.py: LLMEngine.add_request.params" in lost
    assert "envs.py: VLLM_NO_USAGE_STATS" in lost
