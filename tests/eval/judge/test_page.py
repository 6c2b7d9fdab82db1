"""The page on which a person clicks, in a headless Chromium: by mouse and keys, undone, remembered, and read back."""

from understudy.__main__ import main
from understudy.eval.judge.films import find_films
from understudy.eval.ledger.labels import read_labels

from .conftest import write_record


def test_a_person_clicks_and_it_is_read_back(chromium, tmp_path, capsys):
    write_record(tmp_path / "dreamt", [True, False, True, False], dream=True)
    out = tmp_path / "judge.html"
    assert main(["judge", str(tmp_path / "dreamt"), "--judge", "person", "--out", str(out)]) == 0
    context = chromium.new_context(accept_downloads=True)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(out.as_uri())
    assert "learned" not in page.content() and "Film 1 of 4" in page.inner_text("#where")
    page.click("#success")
    page.keyboard.press("y")
    assert "Film 3 of 4" in page.inner_text("#where")
    page.keyboard.press("u")
    page.keyboard.press("n")
    page.reload()
    assert "Film 3 of 4" in page.inner_text("#where"), "the browser remembers"
    page.keyboard.press("s")
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(tmp_path / "person.json")
    context.close()
    assert not faults
    labels = read_labels([tmp_path / "person.json"])
    assert [one.verdict for one in labels] == ["success", "failure", "neither"]
    places = {film.place for film in find_films([tmp_path / "dreamt"]).films}
    assert {(one.record, one.initial_conditions, one.env_seed) for one in labels} < places
    capsys.readouterr()
    assert main(["judge", str(tmp_path / "dreamt"), "--labels", str(tmp_path / "person.json")]) == 0
    assert "person: 1 success, 1 failure, 1 neither; 1 of 4 films without an entry" in capsys.readouterr().out
