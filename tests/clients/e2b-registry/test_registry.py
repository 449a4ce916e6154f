"""Templates from images of a registry, built by E2B's own builder."""

import os

import pytest
from e2b import BuildException, Sandbox, Template

CREDENTIALS = {"username": "somebody", "password": "secret"}


def test_a_foreign_system_becomes_a_template():
    log = []
    template = (
        Template()
        .from_image(os.environ["IMAGE"], **CREDENTIALS)
        .run_cmd("id; pwd; echo $FROM_IMAGE > made")
        .run_cmd("sudo touch /root/by-root")
    )
    Template.build(
        template, "tiny", cpu_count=1, memory_mb=256, skip_cache=True,  # the log is looked at
        on_build_logs=lambda entry: log.append(entry.message),
    )  # fmt: skip
    assert "uid=1001(user) gid=1001(user) groups=1001(user),27(sudo)" in log
    assert "/home/user" in log
    sandbox = Sandbox.create("tiny", timeout=60)
    said = sandbox.commands.run("cat made; whoami; echo $FROM_IMAGE; sudo ls /root; ls /home/user")
    assert said.stdout.split() == ["yes", "user", "yes", "by-root", "made"]
    sandbox.files.write("note", "content")
    assert sandbox.files.read("/home/user/note") == "content"
    sandbox.kill()


def test_names_are_mapped_and_refusals_told():
    alias = os.environ["ALIAS"]
    Template.build(Template().from_image(alias, **CREDENTIALS), "mapped", cpu_count=1, memory_mb=256)
    with pytest.raises(BuildException, match=r"authentication required|unauthorized"):
        Template.build(Template().from_image(alias), "refused")
    with pytest.raises(BuildException, match=r"cannot pull .*nosuch"):
        Template.build(Template().from_image(alias.replace("tiny:1", "nosuch:1"), **CREDENTIALS), "refused")
