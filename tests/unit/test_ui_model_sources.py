"""What each source is now, without a registry."""

import sys

from benchmarks.harness.waiting import wait_until
from ui.session import model_sources
from ui.session.model_sources import ModelSource, ModelSources
from ui.session.settings import AppSettings


def test_why_the_registrys_follower_ended_is_said(monkeypatch, tmp_path):
    ends = (sys.executable, "-c", "import sys; print('noise', file=sys.stderr); sys.exit('no such registry')")
    monkeypatch.setattr(model_sources, "module_command", lambda *_: ends)
    settings = AppSettings(bundle=tmp_path, work=tmp_path, model="models:/understudy@champion")
    sources = ModelSources(None, settings, list)
    try:
        wait_until(lambda: sources.problem(ModelSource.CHAMPION))
        assert "ended (no such registry); it is started again" in sources.problem(ModelSource.CHAMPION)
    finally:
        sources.close()
