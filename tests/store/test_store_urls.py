"""Which URLs name a store, and what is said of the others."""

from __future__ import annotations

import pytest

from gridsearch.errors import UsageError
from gridsearch.store import masked, open_store


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("postgresql://host", "names no database"),
        ("postgresql://host/db?colour=red", "invalid URI query parameter"),
        ("mysql://host/db", "not a store URL"),
        ("runs/gridsearch.db", "not a store URL"),
        ("sqlite://", "not a store URL"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///runs/", "names no file"),
    ],
)
def test_a_url_that_names_no_store_of_ours_is_a_wrong_usage(tmp_path, wrong, match):
    with pytest.raises(UsageError, match=match) as caught:
        open_store(wrong, home=tmp_path, create=True)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "secret_url",
    [
        "postgresql://me:hunter2@host/db",
        "sqlite://u:hunter2@/x.db",
        "postgresql://h/db?password=hunter2",
        "postgresql://h/db?sslpassword=hunter2",
        "postgresql://h/db?pass%77ord=hunter2",
        "pg://u:a@hunter2@h/d",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_repeated(tmp_path, secret_url):
    with pytest.raises(UsageError) as caught:
        open_store(secret_url, home=tmp_path, create=True)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    if secret_url.startswith("postgresql"):
        assert "$PGPASSWORD" in caught.value.hint
        return
    way = (
        str(caught.value.hint)
        .partition("write ")[2]
        .partition(",")[0]
        .replace("PATH", f"{tmp_path}/there.db")
    )
    open_store(way, home=tmp_path, create=True).close()  # what the hint says works
    assert "hunter2" not in masked(f"while reading {secret_url}: it failed")


@pytest.mark.parametrize("name", ["we ird", "100%", "a?b", "#1", "{x}", "ünï"])
def test_a_home_of_any_name_works(tmp_path, name, make):
    home = tmp_path / name
    with open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
        assert store.place == str(home / "gridsearch.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]
