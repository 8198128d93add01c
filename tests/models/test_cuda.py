"""What is prepared for CUDA and can be seen without it."""

import os
from pathlib import Path

from latentsync.models.cuda import keep_compiled_code


def test_compiled_code_is_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # or the folder of this test would stay set
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    keep_compiled_code()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == tmp_path / "latentsync" / "compiled" / "inductor"
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"
