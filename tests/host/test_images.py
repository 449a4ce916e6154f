"""The store, with a builder that makes small trees; and the base template as it was really built."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from skerry.errors import TemplateBuildFailed, TemplateNotFound
from skerry.host import debian, definitions, images
from skerry.host.certificates import local_certificates
from skerry.host.commands import CommandFailed
from skerry.host.definitions import Definition
from skerry.host.images import Images
from skerry.models import Image

pytestmark = pytest.mark.anyio


class SmallTrees:
    """Stands in for `debian.build`."""

    def __init__(self) -> None:
        self.content = "one"
        self.failure: Exception | None = None
        self.builds = 0

    async def __call__(
        self, definition: Definition, root: Path, lower: Sequence[Path] = ()
    ) -> AsyncGenerator[str, None]:
        self.builds += 1
        (root / "etc").mkdir(parents=True)
        yield "first line"
        (root / "etc/content").write_text(self.content)
        await anyio.sleep(0.01)
        if self.failure:
            yield "what went wrong"
            raise self.failure


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> SmallTrees:
    made = SmallTrees()
    monkeypatch.setattr(debian, "build", made)
    return made


async def build(store: Images, name: str = "base") -> list[str]:
    return [line async for line in store.build(name)]


async def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    store = Images(tmp_path / "deep/images")
    assert store.templates() == []
    with pytest.raises(TemplateNotFound, match="skerry template build base"):
        store.template("base")
    for wrong in ("sha256:" + "0" * 64, "../../etc", "sha256:../x", ""):
        with pytest.raises(TemplateNotFound):
            store.trees(wrong)


async def test_a_build_publishes_an_image_and_a_name(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    log = await build(store)
    template = store.template("base")
    assert "first line" in log
    assert template.image in log[-1]
    assert template.languages == ["python"]
    assert template.limits.memory_mib >= 512
    [rootfs] = store.trees(template.image)
    assert (rootfs / "etc/content").read_text() == "one"
    assert stat.S_IMODE(rootfs.stat().st_mode) == 0o755
    assert list((tmp_path / "building").iterdir()) == []
    assert Images(tmp_path).templates() == [template]


async def test_the_same_inputs_are_not_built_again(
    tmp_path: Path, trees: SmallTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Images(tmp_path)
    await build(store)
    assert "up to date" in (await build(store))[0]
    assert trees.builds == 1
    monkeypatch.setattr(debian, "VERSION", 999)
    await build(store)
    assert trees.builds == 2
    assert (
        len([path for path in (tmp_path / "layers").iterdir() if path.is_dir()]) == 1
    )  # the same tree: the same layer


async def test_the_environment_is_inherited_and_part_of_the_inputs(
    tmp_path: Path, trees: SmallTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = definitions.definition("base")
    wanted = {
        "base": base.model_copy(update={"env": {"A": "below", "B": "below"}}),
        "upper": base.model_copy(update={"name": "upper", "based_on": "base", "env": {"B": "above"}}),
    }
    monkeypatch.setattr(definitions, "definition", wanted.__getitem__)
    store = Images(tmp_path)
    await build(store, "upper")
    template = store.template("upper")
    assert template.env == store.image(template.image).env == {"A": "below", "B": "above"}
    wanted["base"] = base.model_copy(update={"env": {"A": "changed"}})
    await build(store, "upper")
    assert store.template("upper").env == {"A": "changed", "B": "above"}


async def test_a_template_without_environment_is_what_it_was_before_there_was_one(
    tmp_path: Path, trees: SmallTrees
) -> None:
    store = Images(tmp_path)
    await build(store)
    content = definitions.definition("base").model_dump(mode="json")
    del content["env"]
    inputs = [debian.VERSION, content, local_certificates(), None]
    stored = json.loads((tmp_path / "templates/base.json").read_text())["inputs"]
    assert stored == hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


async def test_a_damaged_record_or_a_lost_image_is_built_anew(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    await build(store)
    (tmp_path / "templates/base.json").write_text("{")
    assert store.templates() == []
    await build(store)
    [place] = store.trees(store.template("base").image)
    place.rename(tmp_path / "gone")
    assert store.templates() == []
    await build(store)
    assert trees.builds == 3


async def test_a_failed_build_leaves_the_old_template_and_nothing_else(
    tmp_path: Path, trees: SmallTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Images(tmp_path)
    await build(store)
    before = store.template("base")
    monkeypatch.setattr(debian, "VERSION", 999)
    for failure in (CommandFailed("mmdebstrap ended with code 25"), OSError(28, "No space left on device")):
        trees.failure = failure
        with pytest.raises(TemplateBuildFailed) as caught:
            await build(store)
        assert caught.value.details["log"][-1] == "what went wrong"
    assert store.template("base") == before
    assert list((tmp_path / "building").iterdir()) == []


async def test_an_unknown_template_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(TemplateNotFound):
        await build(Images(tmp_path), "nonesuch")


async def test_an_abandoned_build_is_swept(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    lines = store.build("base")
    await anext(lines)
    await lines.aclose()
    assert list((tmp_path / "building").iterdir()) == []
    (tmp_path / "building/left-by-a-killed-server/root").mkdir(parents=True)
    await build(store)
    assert list((tmp_path / "building").iterdir()) == []


async def test_builds_at_the_same_time_make_one(tmp_path: Path, trees: SmallTrees) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(build, Images(tmp_path))
    assert trees.builds == 1


async def test_collect_keeps_what_is_named_or_in_use(
    tmp_path: Path, trees: SmallTrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Images(tmp_path)
    layers = []
    for version, content in enumerate(("one", "two", "three")):
        monkeypatch.setattr(debian, "VERSION", version + 100)
        trees.content = content
        await build(store)
        layers.append(store.trees(store.template("base").image)[0])
    assert store.collect(in_use=[layers[0].name]) == [layers[1].name]
    assert store.collect() == [layers[0].name]
    assert store.trees(store.template("base").image) == [layers[2]]
    assert len(list((tmp_path / "images").iterdir())) == 1
    assert list((tmp_path / "building").iterdir()) == []


async def test_collect_keeps_what_a_users_build_made(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    await build(store)
    below = store.image(store.template("base").image).layers
    (tmp_path / "building/tree").mkdir()
    (tmp_path / "building/tree/added").write_text("x")
    image = store.add(Image(layers=[*below, store.layers.adopt(tmp_path / "building/tree")]))
    store.keep("a build", image)
    store.remember_layer("key", store.image(image).layers[1])
    assert store.collect() == []
    assert len(store.trees(image)) == 2
    store.let_go("a build")
    assert len(store.collect()) == 1
    assert store.known_layer("key") is None
    with pytest.raises(TemplateNotFound):
        store.image(image)


async def test_what_others_build_is_left_alone(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    async with store.staging() as staging:
        (staging / "file").write_text("x")
        await build(store)
        assert (staging / "file").exists()
    (tmp_path / "building/staging-abandoned").mkdir()
    long_ago = time.time() - 24 * 3600
    os.utime(tmp_path / "building/staging-abandoned", (long_ago, long_ago))
    trees.content = "another"
    (tmp_path / "templates/base.json").unlink()
    await build(store)
    assert list((tmp_path / "building").iterdir()) == []


def test_the_same_image_is_added_by_many_at_once(tmp_path: Path) -> None:
    store = Images(tmp_path)

    def make(number: int) -> str:
        tree = tmp_path / "building" / str(number)
        tree.mkdir()
        (tree / "file").write_text("x")
        return store.add(Image(layers=[store.layers.adopt(tree)]))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(40)))) == 1


async def test_what_was_used_lately_is_not_collected(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    await build(store)
    layers = []
    for name in ("old", "known", "new"):
        (tmp_path / "building/tree").mkdir()
        (tmp_path / "building/tree" / name).write_text(name)
        layers.append(store.layers.adopt(tmp_path / "building/tree"))
        store.remember_layer(name, layers[-1])
    image = store.add(Image(layers=layers))
    long_ago = time.time() - 1000
    for path in [*(tmp_path / "layers").glob("*.used"), tmp_path / f"images/{image[7:]}.json"]:
        os.utime(path, (long_ago, long_ago))
    assert store.known_layer("known") == layers[1]  # which uses it
    (tmp_path / f"layers/{layers[2][7:39]}.used").unlink()  # as an older version leaves them
    assert store.collect(unused_s=500) == [layers[0][7:39]]
    assert [store.known_layer(name) for name in ("old", "known", "new")] == [None, *layers[1:]]
    assert not (tmp_path / "steps/old").exists()
    with pytest.raises(TemplateNotFound):
        store.image(image)
    assert store.trees(store.template("base").image)


async def test_a_template_based_on_another_shares_its_layers(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    await build(store, "code-interpreter-v1")
    base, above = store.template("base"), store.template("code-interpreter-v1")
    assert store.image(above.image).layers[:1] == store.image(base.image).layers
    assert trees.builds == 2
    trees.content = "another"
    await build(store, "code-interpreter-v1")
    assert trees.builds == 2


async def test_an_image_of_too_many_layers_is_refused(tmp_path: Path, trees: SmallTrees) -> None:
    store = Images(tmp_path)
    await build(store)
    image = store.image(store.template("base").image)
    with pytest.raises(TemplateBuildFailed, match="48"):
        store.add(image.model_copy(update={"layers": image.layers * 49}))


async def test_a_layer_is_mounted_once(tmp_path: Path, trees: SmallTrees) -> None:
    images = Images(tmp_path)
    made = []
    for name in ("empty", "other"):
        tree = tmp_path / "building" / name
        tree.mkdir()
        (tree / name).write_text(name)
        made.append(images.layers.adopt(tree))
    empty, other = made
    digest = images.add(Image(layers=[empty, other, empty]))
    assert images.trees(digest) == [images.layers.path(other), images.layers.path(empty)]


async def test_only_root_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Images(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TemplateBuildFailed, match="root"):
        await build(store)


# --- the real one ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> Path:
    store = Images(images.DEFAULT_DIRECTORY)
    try:
        return store.trees(store.template("base").image)[0]
    except TemplateNotFound:
        pytest.skip("the base template is not built: `make template`")


async def test_the_base_template_has_what_a_sandbox_expects(base: Path) -> None:
    passwd = (base / "etc/passwd").read_text()
    assert "user:x:1000:1000" in passwd
    assert any(line.startswith("sudo:") and "user" in line for line in (base / "etc/group").read_text().splitlines())
    assert os.readlink(base / "usr/local/bin/sudo") == "/opt/skerry/agent"
    assert not list(base.glob("usr/lib/python3*/EXTERNALLY-MANAGED"))
    assert list(base.glob("home/user/.local/lib/python3*/site-packages"))
    for program in ("python3", "node", "npm", "git", "curl", "bash", "cc", "ps", "unzip"):
        assert (base / "usr/bin" / program).is_symlink() or (base / "usr/bin" / program).exists(), program


async def test_the_base_template_holds_nothing_of_the_host(base: Path) -> None:
    assert list((base / "dev").iterdir()) == []
    assert list((base / "proc").iterdir()) == []
    assert not os.path.lexists(base / "etc/resolv.conf")
    assert not os.path.lexists(base / "etc/machine-id")
    for name in ("etc/pip.conf", "etc/npmrc", "root/.npmrc", "root/.config/pip", "home/user/.config/pip"):
        assert not os.path.lexists(base / name), name
    devices = subprocess.run(
        ["find", base, "-xdev", "(", "-type", "b", "-o", "-type", "c", ")"], capture_output=True, text=True, check=True
    )
    assert devices.stdout == ""


_WITH_NULL = """
set -e
cd "$1" && shift
mount -t tmpfs tmpfs dev && touch dev/null && mount --bind /dev/null dev/null
exec chroot --userspec=1000:1000 . "$@"
"""


async def test_the_base_templates_programs_run(base: Path) -> None:
    script = (
        "python3 -c 'import IPython, numpy, pandas, matplotlib' && node -e 'console.log(1+1)' && npm --version "
        "&& git --version && cc --version >/dev/null && python --version && date"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", _WITH_NULL, "sh", base,
         "env", "-i", "HOME=/home/user", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin",
         "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2\n")
    assert "warning" not in done.stderr.lower()
