"""E2B's API: its control plane, the agent of its sandboxes (envd), its code interpreter, as translations onto the core.

The wire is E2B's, as its SDKs speak it (e2b 2.45 to 2.63 for Python, 2.45 to 2.51 for JavaScript, and the code
interpreters that go with them); `docs/reference/e2b.md` says what works.
"""

from skerry.facades.e2b.control import create_app
from skerry.facades.e2b.envd import create_envd
from skerry.facades.e2b.front import Front
from skerry.facades.e2b.interpreter import create_interpreter

__all__ = ["Front", "create_app", "create_envd", "create_interpreter"]
