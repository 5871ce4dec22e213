"""The demo run that tests of recipes make is what claims are decided on."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("recipes_conftest", Path(__file__).parents[1] / "recipes" / "conftest.py")
assert spec is not None and spec.loader is not None
recipes_conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipes_conftest)
globals().update({name: value for name, value in vars(recipes_conftest).items() if not name.startswith("__")})
