"""Templates built by E2B's builder."""

import asyncio
import time
import traceback
import uuid

import pytest
from e2b import AsyncSandbox, AsyncTemplate, BuildException, Sandbox, Template, wait_for_port


@pytest.fixture
def name():
    return f"app-{uuid.uuid4().hex[:12]}"


def test_a_template_with_every_kind_of_step(name, tmp_path):
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/page.txt").write_text("from the context")
    (tmp_path / "src/deep/more.txt").write_text("more")
    (tmp_path / "src/link").symlink_to("page.txt")
    (tmp_path / ".dockerignore").write_text("**/*.pyc\n")
    (tmp_path / "src/left.pyc").write_text("x")
    log = []
    template = (
        Template(file_context_path=str(tmp_path))
        .from_template("base")
        .set_envs({"GREETING": "hello"})
        .set_workdir("/srv/app")
        .copy("src", "files")
        .run_cmd("echo built by $(whoami) > stamp && echo $GREETING >> stamp")
        .run_cmd("touch /root/mark", user="root")
        .set_start_cmd("python3 -m http.server 8000", wait_for_port(8000))
    )
    Template.build(template, name, cpu_count=1, memory_mb=512, on_build_logs=lambda entry: log.append(entry.message))
    assert Template.exists(name)
    assert any("RUN echo built" in line for line in log)
    sandbox = Sandbox.create(name, timeout=60)
    try:
        said = sandbox.commands.run(
            "pwd; cat stamp files/page.txt files/deep/more.txt files/link; ls files; echo $GREETING"
        )
        assert said.stdout.splitlines() == [
            "/srv/app", "built by user", "hello", "from the contextmorefrom the contextdeep", "link", "page.txt", "hello",
        ]  # fmt: skip
        assert sandbox.commands.run("sudo ls /root/mark").exit_code == 0
        page = sandbox.commands.run("curl -s http://localhost:8000/files/page.txt")
        assert page.stdout == "from the context"
    finally:
        sandbox.kill()
    again = []
    Template.build(template, name, cpu_count=1, memory_mb=512, on_build_logs=lambda entry: again.append(entry.message))
    assert sum("result is known" in line for line in again) == 4


def test_a_failing_step_is_told_with_its_place(name):
    template = Template().from_template("base").run_cmd("true").run_cmd("echo what went wrong >&2; exit 3")
    log = []
    with pytest.raises(BuildException, match="exit status 3") as raised:
        Template.build(template, name, on_build_logs=lambda entry: log.append(entry.message))
    place = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (place.filename, "exit 3" in (place.line or "")) == (__file__, True), "the line of the step is shown"
    assert "what went wrong" in log
    hungry = Template().from_template("base").run_cmd("python3 -c 'bytearray(2 * 10**9)'")
    with pytest.raises(BuildException, match="out of memory: the step needed more than its 256 MiB"):
        Template.build(hungry, name, cpu_count=1, memory_mb=256)
    with pytest.raises(BuildException, match="cannot find template 'nosuch'"):
        Template.build(Template().from_template("nosuch"), name)
    with pytest.raises(BuildException, match="ended with exit code 4"):
        Template.build(Template().from_template("base").set_start_cmd("exit 4", "sleep 1"), name)


def test_a_start_command_was_running_before_its_sandbox_was_made(name):
    """A template keeps the memory of a sandbox in which it was started and ready."""
    template = (
        Template()
        .from_template("base")
        .set_start_cmd("sleep 3; date +%s.%N > /tmp/ready; exec sleep infinity", "test -e /tmp/ready")
    )
    Template.build(template, name, cpu_count=1, memory_mb=512)
    for _ in range(3):
        before = time.time()
        sandbox = Sandbox.create(name, timeout=60)
        try:
            assert float(sandbox.files.read("/tmp/ready")) < before
            assert sandbox.commands.run("pgrep -fx 'sleep infinity'").exit_code == 0
        finally:
            sandbox.kill()


async def test_tags(name):
    built = await AsyncTemplate.build(AsyncTemplate().from_base_image(), f"{name}:v1", tags=["stable"])
    given = await AsyncTemplate.assign_tags(f"{name}:v1", ["latest"])
    assert given.build_id == built.build_id
    assert {tag.tag for tag in await AsyncTemplate.get_tags(name)} == {"v1", "stable", "latest"}
    assert await AsyncTemplate.exists(name) is True
    assert await AsyncTemplate.exists(f"{name}-not") is False
    await AsyncTemplate.remove_tags(name, ["stable"])
    sandbox = Sandbox.create(f"{name}:latest", timeout=60)
    assert sandbox.commands.run("echo alive").stdout == "alive\n"
    sandbox.kill()
    with pytest.raises(Exception, match="not found"):
        Sandbox.create(f"{name}:stable")


async def test_a_build_in_the_background(name, tmp_path):
    (tmp_path / "file").write_text("copied")
    template = (
        AsyncTemplate(file_context_path=tmp_path).from_template("base").copy("file", "/srv/").run_cmd("cat /srv/file")
    )
    started = await AsyncTemplate.build_in_background(template, name, skip_cache=True)
    for _ in range(200):
        status = await AsyncTemplate.get_build_status(started)
        if status.status.value not in ("building", "waiting"):
            break
        await asyncio.sleep(0.2)
    assert status.status.value == "ready", status
    sandbox = await AsyncSandbox.create(name, timeout=60)
    assert await sandbox.files.read("/srv/file") == "copied"
    await sandbox.kill()
