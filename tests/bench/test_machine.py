from bench import machine


def test_fields_are_found_at_the_beginning_of_a_line() -> None:
    text = 'not model name : x\nmodel name\t: Some CPU\nPRETTY_NAME="Debian"\n'
    assert machine.field_of(text, "model name") == "Some CPU"
    assert machine.field_of(text, "PRETTY_NAME", "=") == "Debian"
    assert machine.field_of(text, "absent") == ""


def test_this_machine_can_be_looked_at() -> None:
    seen = machine.look()
    assert seen.cores >= 1
    assert seen.memory_mib > seen.memory_available_mib > 0
    assert seen.kernel in machine.markdown(seen, seen)
