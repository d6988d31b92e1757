"""What decisions rest on, said and read on the command line."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_a_fact_is_what_was_said_last(cli: Cli) -> None:
    assert cli("facts", "show").out.startswith("Nothing is known.")
    cli("facts", "set", "price of oil", "40")
    (told,) = cli("--by", "ana", "facts", "set", "price of oil", '{"eur": 50}', "--json").json
    assert (told["name"], told["value"], told["set_by"]) == ("price of oil", {"eur": 50}, "ana")
    assert cli("facts", "show", "price of oil", "--json").json == [told]
    cli("facts", "set", "port", "closed")
    assert [one["value"] for one in cli("facts", "show", "--json").json] == ["closed", {"eur": 50}]
    assert "closed" in cli("facts", "show", "port").out
    refused = cli("facts", "set", "", "1")
    assert refused.code == 1 and refused.problem[0] == "That is no fact that can be kept"
