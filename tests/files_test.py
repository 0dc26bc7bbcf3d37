from keras_gen import files


def test_a_file_or_folder_is_replaced_by_what_was_written(tmp_path):
    (tmp_path / "new").mkdir()
    for name in ("file", "new"):
        with files.replacing(tmp_path / name) as part:
            assert part != str(tmp_path / name)
            with open(part, "w") as file:
                file.write("whole")
        assert (tmp_path / name).read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with files.replacing("~/run/file") as part:
        with open(part, "w") as file:
            file.write("whole")
    assert (tmp_path / "run" / "file").read_text() == "whole"


def test_a_url_is_not_taken_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with files.replacing("gs://bucket/model.keras") as part:
        assert part == "gs://bucket/model.keras"
    assert not list(tmp_path.iterdir())
