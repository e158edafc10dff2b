import pytest
from tiny import tree

from vae_helpers.files import written_whole


def test_the_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "new folder" / "file.txt"
    for content in ("first", "second"):
        with written_whole(path) as partial:
            partial.write_text(content)
        assert tree(tmp_path) == {"new folder/file.txt": content.encode()}


def test_until_the_block_ends_the_old_content_is_in_place(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with written_whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_no_partial_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert tree(tmp_path) == {"file.txt": b"old"}
