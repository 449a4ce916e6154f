"""Images pulled from a real registry on this machine: Debian's docker-registry."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import ImageUnreachable, InvalidRequest, TemplateBuildFailed
from skerry.host import registry as registries
from skerry.host.images import Images
from skerry.host.registry import Puller, registry_of
from skerry.host.trees import Allowance
from skerry.models import Registry
from tests.registry import LocalRegistry, layer, serve, write_layout, write_saved

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    yield from serve(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    yield from serve(tmp_path_factory.mktemp("private"), "somebody:secret")


def puller(images: Images, *registries: LocalRegistry) -> Puller:
    return Puller(images, frozenset(registry.address for registry in registries))


async def test_an_image_is_pulled_and_its_layers_are_shared(tmp_path: Path, registry: LocalRegistry) -> None:
    images, log = Images(tmp_path), []
    below, above = layer(etc__name="one", etc__gone="x"), layer(etc__WH_gone="", etc__more="two")
    reference = registry.push("team/app:1", [below, above], Env=["PATH=/bin", "A=b=c"], User="nobody")
    image = await puller(images, registry).pull(reference, None, log.append)
    assert image.env == {"PATH": "/bin", "A": "b=c"}
    first, second = images.trees(images.add(image))
    assert (first / "etc/name").read_text() == "one"
    assert (second / "etc/more").read_text() == "two"
    assert (second / "etc/gone").is_char_device()
    assert [line for line in log if "unpacking" in line] == ["unpacking layer 1 of 2", "unpacking layer 2 of 2"]
    log.clear()
    other = registry.push("team/other:1", [below, layer(etc__other="three")])
    again = await puller(images, registry).pull(other, None, log.append)
    assert again.layers[0] == image.layers[0]
    assert [line for line in log if "unpacking" in line] == ["unpacking layer 2 of 2"]
    assert list((tmp_path / "building").iterdir()) == []


async def test_a_private_registry_wants_credentials(tmp_path: Path, private: LocalRegistry) -> None:
    images = Images(tmp_path)
    reference = private.push("app:1", [layer(name="x")])
    pull = puller(images, private).pull
    for wrong in (None, Registry(username="somebody", password="wrong")):
        with pytest.raises(ImageUnreachable, match=r"authentication required|unauthorized|incorrect"):
            await pull(reference, wrong, lambda _: None)
    good = Registry(username="somebody", password="secret")
    assert len((await pull(reference, good, lambda _: None)).layers) == 1
    with pytest.raises(InvalidRequest, match="name its registry"):
        await pull("app:1", good, lambda _: None)


async def test_what_cannot_be_pulled(tmp_path: Path, registry: LocalRegistry) -> None:
    images = Images(tmp_path)
    pull = puller(images, registry).pull
    for reference in (f"{registry.address}/nosuch:1", "127.0.0.1:1/app:1", "UPPER/ not a reference"):
        with pytest.raises(ImageUnreachable, match="cannot pull"):
            await pull(reference, None, lambda _: None)
    up = io.BytesIO()
    with tarfile.open(fileobj=up, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    with pytest.raises(TemplateBuildFailed, match="leads upwards"):
        await pull(registry.push("hostile:1", [up.getvalue()]), None, lambda _: None)
    assert list((tmp_path / "layers").iterdir()) == list((tmp_path / "building").iterdir()) == []


async def test_an_image_that_does_not_fit_is_given_up(
    tmp_path: Path, registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Images(tmp_path)
    reference = registry.push("bomb:1", [layer(zeros="0" * (80 << 20))])
    monkeypatch.setattr(Puller, "_allowance", lambda self, staging: Allowance(10 << 20))
    monkeypatch.setattr(registries, "_WATCH_S", 0.0)
    with pytest.raises(TemplateBuildFailed, match=r"more than the 10 MiB|more files or bytes"):
        await puller(images, registry).pull(reference, None, lambda _: None)
    assert list((tmp_path / "layers").iterdir()) == list((tmp_path / "building").iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("ubuntu:22.04", None), ("team/app", None), ("registry.example/app", "registry.example"),
        ("localhost/app", "localhost"), ("[::1]:5000/app", "[::1]:5000"), ("host:5000/team/app@sha256:x", "host:5000"),
    ],
)  # fmt: skip
def test_which_registry_is_meant(reference: str, registry: str | None) -> None:
    assert registry_of(reference) == registry


async def test_networks_that_are_not_public_are_not_looked_around_in(tmp_path: Path) -> None:
    images = Images(tmp_path)
    for registry in ("127.0.0.1:1", "localhost:1", "[::1]:1", "10.1.2.3:5000", "169.254.169.254", "2130706433:80"):
        with pytest.raises(ImageUnreachable, match=r"not public|cannot pull"):
            await Puller(images).pull(f"{registry}/app:1", None, lambda _: None)
    allowed = Puller(images, private=frozenset({"127.0.0.1:1"}))
    with pytest.raises(ImageUnreachable, match="connection refused"):
        await allowed.pull("127.0.0.1:1/app:1", None, lambda _: None)


async def test_archives_are_loaded(tmp_path: Path) -> None:
    images, log = Images(tmp_path / "store"), []
    below, above = layer(etc__name="one"), layer(etc__more="two")
    saved, layout, tree = tmp_path / "saved.tar", tmp_path / "layout.tar", tmp_path / "tree.tar"
    write_saved(saved, [below, above, below], {"User": "nobody:x", "WorkingDir": "/srv"})
    write_layout(tmp_path / "layout", [below, above], {"Env": ["A=b"]})
    subprocess.run(["tar", "-C", tmp_path / "layout", "-czf", layout, "."], check=True, timeout=30)
    tree.write_bytes(layer(manifest_json="x", etc__name="three"))
    image = await puller(images).load(saved, log.append)
    assert (len(image.layers), image.user, image.workdir) == (3, "nobody", "/srv")
    assert (await puller(images).load(layout, log.append)).layers == image.layers[:2]
    [only] = (await puller(images).load(tree, log.append)).layers
    assert (images.layers.path(only) / "etc/name").read_text() == "three"
    assert list((tmp_path / "store/building").iterdir()) == []


@pytest.mark.parametrize("kind", ["link in a layout", "link out of what docker saved", "no archive", "lies"])
async def test_hostile_archives(tmp_path: Path, kind: str) -> None:
    images, archive = Images(tmp_path / "store"), tmp_path / "archive.tar"
    (tmp_path / "host-file").write_bytes(layer(stolen="x"))
    write_layout(tmp_path / "layout", [layer(a="b")], {})
    if kind == "link in a layout":
        blob = next((tmp_path / "layout/blobs/sha256").iterdir())
        blob.unlink()
        blob.symlink_to(tmp_path / "host-file")
        subprocess.run(["tar", "-C", tmp_path / "layout", "-cf", archive, "."], check=True, timeout=30)
    elif kind == "no archive":
        archive.write_bytes(b"no tar" * 1000)
    else:
        digest = hashlib.sha256((tmp_path / "host-file").read_bytes()).hexdigest()
        config = {"rootfs": {"diff_ids": [f"sha256:{digest}"]}}
        with tarfile.open(archive, "w") as tar:
            for name, text in (("manifest.json", [{"Config": "c", "Layers": ["l"]}]), ("c", config), ("l", "lies")):
                member = tarfile.TarInfo(name)
                content = json.dumps(text).encode()
                member.size = len(content)
                if name == "l" and kind != "lies":
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, str(tmp_path / "host-file"), 0
                tar.addfile(member, io.BytesIO(content[: member.size]))
    with pytest.raises(
        TemplateBuildFailed, match=r"neither file nor directory|no file of the archive|cannot unpack|not what it says"
    ):
        await puller(images).load(archive, lambda _: None)
    left = [path for path in (tmp_path / "store/layers").iterdir() if path.is_dir()]
    assert left == list((tmp_path / "store/building").iterdir()) == []
