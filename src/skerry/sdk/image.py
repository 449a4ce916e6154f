"""What a template is made of: a source, and steps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from skerry.errors import InvalidRequest
from skerry.models import Recipe, Registry, Step, StepKind
from skerry.sdk import dockerfile
from skerry.sdk.archives import Archive, File, Ignore, collect

# By variables: an older pip ignores those that it does not know.
_PIP = "PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 {}"
_REQUIREMENTS = "/var/tmp/requirements.txt"  # noqa: S108 - inside the sandbox of a build
_APT = (
    "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install {} && "
    "rm -rf /var/lib/apt/lists/*"
)


@dataclass(frozen=True)
class Image:
    """A source and the steps after it. Made by one of the `from_…` methods; each other method returns a new image.

        image = Image.from_template("base").apt_install("ffmpeg").pip_install("requests").copy("app", "/srv/app")
        Template.build(image, "my-app")

    Commands run as root until `user` names somebody; so do the programs of its sandboxes. Of an image that begins with
    a template, they run as that template's user, and commands of `apt_install` and the like as root.

    Attributes:
        recipe: what is sent to the server.
        uploads: local files that it needs, by their hashes.
    """

    recipe: Recipe
    uploads: Mapping[str, Archive | File] = field(default_factory=dict[str, Archive | File])

    # --- sources ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_template(cls, name: str) -> Self:
        """Begin with a template, `name` or `name:tag`."""
        return cls(Recipe(from_template=name, as_image=True))

    @classmethod
    def from_sandbox(cls, sandbox_id: str) -> Self:
        """Begin with the files of a sandbox of one's own that runs, or is paused in memory, as they are when the build
        comes to them. Its environment, and what runs in it, are left out."""
        return cls(Recipe(from_sandbox=sandbox_id, as_image=True))

    @classmethod
    def from_registry(cls, reference: str, *, username: str | None = None, password: str | None = None) -> Self:
        """Begin with an image such as `ubuntu:22.04` or `registry.example:5000/team/app:1`.

        Args:
            username, password: for that registry; sent with the build and kept nowhere.

        Raises:
            InvalidRequest: only one of the two is given.
        """
        if (username is None) != (password is None):
            raise InvalidRequest("cannot use credentials: give both username and password")
        credentials = None if username is None or password is None else Registry(username=username, password=password)
        return cls(Recipe(from_image=reference, registry=credentials, as_image=True))

    @classmethod
    def from_dockerfile(
        cls, path: str | Path = "Dockerfile", *, context: str | Path | None = None,
        build_args: Mapping[str, str] | None = None, target: str | None = None,
    ) -> Self:  # fmt: skip
        """What a Dockerfile says, with its stages, ARGs, here-documents and .dockerignore.

        Args:
            path: the Dockerfile.
            context: the directory that COPY takes files from; default: the Dockerfile's.
            build_args: values for ARG.
            target: the stage to stop at; default: the last.

        Raises:
            InvalidRequest: with the line; or docker's parser is missing (`pip install 'skerry[dockerfile]'`).
        """
        place = Path(path)
        recipe, uploads = dockerfile.read(place, Path(context or place.parent), build_args, target)
        return cls(recipe, uploads)

    @classmethod
    def from_tar(cls, path: str | Path) -> Self:
        """Begin with a tar: of a root file system (`docker export`), or of an image (`docker save`, OCI).

        Raises:
            InvalidRequest: there is no such file.
        """
        file = File(Path(path))
        if not file.path.is_file():
            raise InvalidRequest(f"cannot begin with {path}: there is no such file")
        return cls(Recipe(from_files=file.digest, as_image=True), {file.digest: file})

    # --- steps ------------------------------------------------------------------------------------------------------

    def run(self, *commands: str, user: str | None = None) -> Self:
        """Run shell commands, each a step of its own. `user`: default: who programs run as at this point."""
        return self._then(*(Step(kind=StepKind.RUN, args=[command, user or ""]) for command in commands))

    def apt_install(self, *packages: str) -> Self:
        """Install Debian packages, as root."""
        return self.run(_APT.format(shlex.join(packages)), user="root") if packages else self

    def pip_install(self, *packages: str, requirements: str | Path | None = None) -> Self:
        """Install Python packages for everybody, as root.

        Args:
            requirements: a local requirements file, installed too.

        Raises:
            InvalidRequest: it is not there.
        """
        made = self
        words = list(packages)
        if requirements is not None:
            made = made.copy(requirements, _REQUIREMENTS, owner="root")
            words += ["-r", _REQUIREMENTS]
        command = shlex.join(["python3", "-m", "pip", "install", "--quiet", *words])
        return made.run(_PIP.format(command), user="root") if words else made

    def npm_install(self, *packages: str) -> Self:
        """Install npm packages for everybody, as root."""
        command = shlex.join(["npm", "install", "--global", "--no-fund", "--no-audit", *packages])
        return self.run(command, user="root") if packages else self

    def copy(
        self, source: str | Path | Sequence[str | Path], target: str, *, owner: str | None = None,
        mode: int | None = None, ignore: Sequence[str] = (),
    ) -> Self:  # fmt: skip
        """Copy local files: of a directory its content.

        Args:
            source: a file, a directory, or several.
            target: relative to the working directory; it ends with `/` to be a directory.
            owner: `user` or `user:group`; default: who programs run as at this point.
            mode: of all files, for example 0o644; default: their own.
            ignore: patterns as in a .dockerignore, relative to each source.

        Raises:
            InvalidRequest: a source is not there.
        """
        sources = [source] if isinstance(source, str | Path) else list(source)
        made = self
        for item in sources:
            path = Path(item)
            is_directory = path.is_dir()
            root, name = (path, ".") if is_directory else (path.parent, path.name)
            place = f"{target.rstrip('/')}/" if is_directory or len(sources) > 1 else target
            copy = collect(root, [name], place, Ignore.of(ignore))
            how = [copy.target, owner or "", "" if mode is None else f"{mode:04o}"]
            step = Step(kind=StepKind.COPY, args=[copy.source, *how], files=copy.archive.digest)
            made = made._then(step)
            made = made._with(uploads={**made.uploads, copy.archive.digest: copy.archive})
        return made

    def env(self, **variables: str) -> Self:
        """Environment of all that follows, and of everything in its sandboxes."""
        pairs = [word for pair in variables.items() for word in pair]
        return self._then(Step(kind=StepKind.ENV, args=pairs)) if pairs else self

    def workdir(self, path: str) -> Self:
        """Where commands and programs start; made if it is missing."""
        return self._then(Step(kind=StepKind.WORKDIR, args=[path]))

    def user(self, name: str) -> Self:
        """Who commands and programs run as; made if there is no such user."""
        return self._then(Step(kind=StepKind.USER, args=[name]))

    def start(self, command: str, *, ready: str | None = None) -> Self:
        """A command that already runs when somebody gets a sandbox.

        Args:
            command: for a shell; it runs as the last `user`.
            ready: a shell command that succeeds when the other one is ready; default: it is at once.
        """
        return self._with(recipe=self.recipe.model_copy(update={"start_command": command, "ready_command": ready}))

    def fresh(self) -> Self:
        """All steps before this are carried out although their results are known."""
        return self._with(recipe=self.recipe.model_copy(update={"force": True}))

    def _then(self, *steps: Step) -> Self:
        return self._with(recipe=self.recipe.model_copy(update={"steps": [*self.recipe.steps, *steps]}))

    def _with(self, **changed: Any) -> Self:
        return type(self)(**{"recipe": self.recipe, "uploads": self.uploads, **changed})
