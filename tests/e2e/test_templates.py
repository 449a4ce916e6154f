"""Templates of one's own: images, Dockerfiles and tars through the SDK and the CLI, on a real server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from skerry import Image, Sandbox, Template
from skerry.errors import TemplateBuildFailed, TemplateNotFound
from tests.registry import layer, tiny_system, write_layout, write_saved

from .conftest import Server

pytestmark = pytest.mark.timeout(180)

DOCKERFILE = """
ARG BASE=template:base
FROM $BASE AS build
USER root
WORKDIR /src
COPY --chmod=644 . .
ARG GREETING=none
RUN ["sh", "-c", "echo $GREETING > out/greeting && ln -s greeting out/link"]
RUN <<EOF
#!/usr/bin/env python3
open("out/script", "w").write("by python")
EOF

FROM template:base AS unused
RUN exit 1

FROM template:base
USER root
ENV APP=/srv/app PATH="/opt/tools:$PATH:/opt/last"
COPY --from=build --chown=user:user /src/out $APP/
COPY <<EOF /srv/conf
app is $APP
EOF
WORKDIR $APP
USER user
HEALTHCHECK CMD curl -fs localhost:8000/greeting
CMD ["python3", "-m", "http.server", "8000"]
"""


def build(server: Server, image: Image, name: str, **how: Any) -> list[str]:
    log: list[str] = []
    Template.build(
        image, name, cpu=1, memory=512, on_log=log.append, api_url=server.api_url, api_key=server.api_key, **how
    )
    return log


def said(sandbox: Sandbox, command: str) -> str:
    result = sandbox.exec(command)
    assert result.returncode == 0, result
    return result.stdout.strip()


def test_an_image_is_built_step_by_step(server: Server, tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "deep").mkdir(parents=True)
    (app / "main.py").write_text("print('main')")
    (app / "deep/secret.env").write_text("x")
    (tmp_path / "requirements.txt").write_text("")
    image = (
        Image.from_template("base")
        .run("id -un; pwd", "mkdir -p made")
        .pip_install(requirements=tmp_path / "requirements.txt")
        .env(STAGE="test")
        .workdir("/srv/app")
        .copy(app, ".", ignore=["**/*.env"])
        .copy(app / "main.py", "/srv/other.py", owner="root", mode=0o600)
        .user("worker")
        .run("id -un > /tmp/who")
        .start("python3 -m http.server 8001", ready="curl -fs localhost:8001/main.py")
        .fresh()
    )
    log = build(server, image, "stepwise", tags=["v1"])
    assert {"user", "/home/user"} <= set(log), log
    with server.sandbox(template="stepwise:v1", timeout=60) as sandbox:
        assert said(sandbox, "whoami; pwd; echo $STAGE; python3 main.py; ls deep | wc -l; cat /tmp/who").split() == [
            "worker", "/srv/app", "test", "main", "0", "worker",
        ]  # fmt: skip
        assert said(sandbox, "curl -fs localhost:8001/main.py") == "print('main')"
        assert sandbox.files.stat("/srv/other.py", user="root").mode == 0o600
        assert sandbox.files.stat("/home/user/made", user="user").owner == "user"
    where = {"api_url": server.api_url, "api_key": server.api_key}
    Template.tag("stepwise", "prod", source="v1", **where)
    assert {tag.tag for tag in Template.tags("stepwise", **where)} == {"v1", "prod"}
    Template.untag("stepwise", "v1", **where)
    with pytest.raises(TemplateNotFound):
        Template.get("stepwise:v1", **where)
    assert Template.get("stepwise:prod", **where).start_command is not None
    assert "stepwise:prod" in [template.name for template in Template.list(**where)]
    Template.remove("stepwise", **where)
    with pytest.raises(TemplateNotFound):
        Template.remove("stepwise", **where)


def test_a_dockerfile_of_stages(server: Server, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/data").write_text("data")
    (tmp_path / "ignored").write_text("x")
    (tmp_path / ".dockerignore").write_text("ignored\nDockerfile\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    image = Image.from_dockerfile(tmp_path / "Dockerfile", build_args={"GREETING": "hello"})
    build(server, image, "staged")
    with server.sandbox(template="staged", timeout=60) as sandbox:
        assert said(sandbox, "curl -fs localhost:8000/greeting") == "hello"
        assert said(sandbox, "whoami; pwd; cat link script data; stat -c %U greeting; cat /srv/conf") == (
            "user\n/srv/app\nhello\nby pythondatauser\napp is /srv/app"
        )
        assert sandbox.files.exists("/src") is False
        path = said(sandbox, "echo $PATH").split(":")
        assert (path[-1], "/opt/tools" in path) == ("/opt/last", True)
        assert "/usr/bin" in path


def test_tars_of_a_file_system_and_of_an_image(server: Server, tmp_path: Path) -> None:
    tree, archive = tmp_path / "tree.tar", tmp_path / "image.tar"
    tree.write_bytes(tiny_system())
    config = {"Env": ["FROM_IMAGE=yes"], "User": "other:grp", "WorkingDir": "/etc"}
    write_layout(tmp_path / "layout", [tiny_system()], config)
    subprocess.run(["tar", "-C", tmp_path / "layout", "-cf", archive, "."], check=True, timeout=30)
    build(server, Image.from_tar(tree), "of-tree")
    with server.sandbox(template="of-tree", timeout=60) as sandbox:
        assert said(sandbox, "whoami; pwd").split() == ["root", "/"]
    assert "other in /etc" in build(server, Image.from_tar(archive).run('echo "$(whoami) in $PWD"').fresh(), "of-image")
    with server.sandbox(template="of-image", timeout=60) as sandbox:
        assert said(sandbox, "whoami; pwd; echo $FROM_IMAGE").split() == ["other", "/etc", "yes"]
    saved = tmp_path / "saved.tar"
    write_saved(saved, [tiny_system(), layer(etc__added="yes")], {"Env": ["FROM_IMAGE=saved"]})
    build(server, Image.from_tar(saved), "of-saved")
    with server.sandbox(template="of-saved", timeout=60) as sandbox:
        assert said(sandbox, "whoami; echo $FROM_IMAGE; cat /etc/added").split() == ["root", "saved", "yes"]
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar" * 1000)
    with pytest.raises(TemplateBuildFailed, match="step base: cannot unpack the archive"):
        build(server, Image.from_tar(broken), "of-nothing")


def test_a_failing_step_is_told(server: Server) -> None:
    image = Image.from_template("base").run("echo before", "echo the reason >&2; exit 3")
    with pytest.raises(TemplateBuildFailed, match=r"step 2: .*exit status 3") as caught:
        build(server, image, "failing")
    assert caught.value.details["step"] == "2"
    assert "the reason" in caught.value.details["log"]
    with pytest.raises(TemplateNotFound):
        server.sandbox(template="failing")


REACH = """
import socket, sys
gateway = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
for host in (gateway, "127.0.0.1", "169.254.169.254", "192.168.0.1"):
    try:
        socket.create_connection((host, int(sys.argv[1])), 2)
        print("reached", host)
    except OSError:
        print("kept from", host)
"""


def test_a_step_has_limits_and_reaches_what_a_sandbox_reaches(server: Server, tmp_path: Path) -> None:
    (tmp_path / "reach.py").write_text(REACH)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        image = (
            Image.from_template("base").copy(tmp_path / "reach.py", "/tmp/")
            .run(f"python3 /tmp/reach.py {port}", "awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo")
        )  # fmt: skip
        log = build(server, image.fresh(), "kept-in")
    assert sum(line.startswith("kept from ") for line in log) == 4
    assert not [line for line in log if line.startswith("reached")]
    with pytest.raises(TemplateBuildFailed, match="out of memory: the step needed more than its 512 MiB"):
        build(server, Image.from_template("base").run("python3 -c 'bytearray(2 * 10**9)'").fresh(), "eater")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "build-files/xyz", 400, "64 hexadecimal digits"), ("GET", f"build-files/{'a' * 64}", 404, "none were"),
        ("GET", "templates/nosuch/tags", 404, "cannot find"), ("DELETE", "templates/base", 404, "cannot find"),
        ("GET", "templates/nosuch/builds/x/log", 404, "cannot find"), ("PUT", "templates/nosuch/tags/x", 404, "find"),
    ],
)  # fmt: skip
def test_what_is_not_there(server: Server, method: str, path: str, status: int, message: str) -> None:
    got, reply = server.request(method, f"/v1/{path}")
    assert (got, message in reply["error"]["message"]) == (status, True), reply


def test_a_wrong_recipe_begins_nothing(server: Server) -> None:
    copy = {"from_template": "base", "steps": [{"kind": "copy", "args": ["a"]}]}
    for recipe, message in (
        ({}, "only one of them"), ({"from_stage": "x"}, "no earlier stage"), (copy, "copy needs"),
        ({"from_template": "base", "x": 1}, "Extra"),
    ):  # fmt: skip
        body = json.dumps({"recipe": recipe}).encode()
        status, reply = server.request("POST", "/v1/templates/wrong/builds", body, "content-type: application/json")
        assert status in (400, 422), reply
        assert message in reply["error"]["message"], reply
    with pytest.raises(TemplateNotFound):
        Template.tags("wrong", api_url=server.api_url, api_key=server.api_key)


def test_commands_that_are_never_ready_hold_nobody_up(server: Server) -> None:
    for name in ("never", "never-either", "nor-this"):
        recipe = {"from_template": "base", "start_command": f"sleep 600 # {name}", "ready_command": "false"}
        body = json.dumps({"recipe": recipe, "cpu": 0.1, "memory_mib": 256}).encode()
        status, _ = server.request("POST", f"/v1/templates/{name}/builds", body, "content-type: application/json")
        assert status == 201
    time.sleep(2)  # they wait for their commands by now
    build(server, Image.from_template("base").env(OTHER="yes"), "other")
    with server.sandbox(template="other", disk=100, timeout=60) as sandbox:
        assert said(sandbox, "echo $OTHER") == "yes"


def test_the_command_line_builds_them_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM template:base\nARG A\nUSER root\nRUN echo $A > /etc/made\nUSER user\n")
    environment = {**os.environ, "SKERRY_API_URL": server.api_url, "SKERRY_API_KEY": server.api_key}

    def skerry(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "skerry", *arguments], capture_output=True, text=True, timeout=90, env=environment,
            cwd=tmp_path, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        return done.stdout + done.stderr

    assert "by-cli: " in skerry("template", "build", "by-cli", "-f", "Dockerfile", "--build-arg", "A=1", "--tag", "x")
    with server.sandbox(template="by-cli:x", timeout=60) as sandbox:
        assert said(sandbox, "cat /etc/made") == "1"
    skerry("template", "tag", "by-cli", "y", "--source", "x")
    assert [tag["tag"] for tag in json.loads(skerry("template", "tags", "by-cli", "--json"))] == ["x", "y"]
    skerry("template", "untag", "by-cli", "x")
    assert "exit status 4" in skerry("template", "build", "by-cli", "--template", "base", "--run", "exit 4", code=1)
    assert "say what to begin with" in skerry("template", "build", "base", "--run", "true", code=1)
    assert "belongs to --dockerfile" in skerry("template", "build", "x", "--template", "base", "--target", "y", code=1)
    assert "only one of" in skerry("template", "build", "x", "-f", "Dockerfile", "--image", "y", code=1)
    skerry("template", "rm", "by-cli")
    assert "by-cli" not in skerry("template", "ls")


def test_a_template_from_a_sandbox_that_goes_on(server: Server) -> None:
    with server.sandbox(env={"SECRET": "of the sandbox"}) as sandbox:
        sandbox.exec("echo made > /home/user/made && rm -rf /usr/share/doc/bash", user="root")
        sandbox.run_code("x = 41")
        sandbox.pause()
        log = build(server, Image.from_sandbox(sandbox.id).run("echo more > /home/user/more"), "from-a-sandbox")
        assert any("copying what sandbox" in line for line in log)
        assert sandbox.run_code("x + 1").text == "42", "it goes on"
    with server.sandbox(template="from-a-sandbox") as made:
        assert made.exec("cat /home/user/made /home/user/more").stdout == "made\nmore\n"
        assert not made.files.exists("/usr/share/doc/bash"), "what was removed stays so"
        assert made.exec("echo $SECRET; whoami").stdout == "\nuser\n"
        assert made.run_code("1 + 1").text == "2"
    gone = server.sandbox()
    gone.kill()
    with pytest.raises(TemplateBuildFailed, match="destroyed"):
        build(server, Image.from_sandbox(gone.id), "from-nothing")
