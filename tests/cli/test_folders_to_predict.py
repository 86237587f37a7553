"""A folder given in place of images is answered with words that name its files in a shell, if it holds any."""

import subprocess
from pathlib import Path

import pytest

from gridsearch.cli.commands.winner import _require_files
from gridsearch.errors import UsageError


@pytest.mark.parametrize("inside", ["0.png", "cat/0.png", "test/cat/0.png"])
def test_the_words_that_name_the_files_of_a_folder_name_them(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "my photos [1]"
    (folder / inside).parent.mkdir(parents=True)
    (folder / inside).write_bytes(b"")
    with pytest.raises(UsageError, match="is a folder, not an image") as caught:
        _require_files([str(folder)])
    words = str(caught.value.hint).removeprefix("name its files: ")
    found = subprocess.run(["sh", "-c", f"ls {words}"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(folder / inside)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(UsageError, match="an image's name is empty"):
        _require_files([""])


def test_of_a_folder_without_files_no_words_are_given_that_name_none(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(UsageError) as caught:
        _require_files([str(tmp_path)])
    assert caught.value.hint == "name files; it holds none"
