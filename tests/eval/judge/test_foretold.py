"""The films that a measured world model keeps are judged, true and imagined apart; what was changed is refused."""

import json
from dataclasses import asdict

import pytest

from understudy.__main__ import main
from understudy.eval.judge import endpoint
from understudy.eval.judge.films import find_films
from understudy.eval.ledger.foretold import Foretold
from understudy.eval.ledger.verify import digest, sealed
from understudy.policies.data.encode import write_mp4

from .conftest import film
from .test_endpoint import says, sees, serving
from .test_judge import line, vlm

RECORDED = [True, True, False, False, None]  # of the last one nobody recorded the outcome
IMAGINED = [True, False, False, True, True]  # what the films show
OWN = [True, True, True, False, None]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What `eval --world-model` leaves: two films of a pair, written alike."""
    monkeypatch.setattr(endpoint, "FIRST", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root, films = tmp_path / "measured", []
    (root / "films").mkdir(parents=True)
    for number, (won, dreamt, own) in enumerate(zip(RECORDED, IMAGINED, OWN, strict=True)):
        for kind, shown in (("true", bool(won)), ("imagined", dreamt)):
            path = root / f"films/{number:04d}-{kind}.mp4"
            write_mp4(path, film(shown), 10.0, quality=5)
            films.append(
                Foretold(
                    number=number, kind=kind, file=f"films/{path.name}", sha256=digest(path), episode=number // 2,
                    first=0, success=won, own=own,
                )
            )  # fmt: skip
    write(root, films)
    return root


def write(root, films):
    about = {"kind": "world-model", "data": {"fingerprint": "f"}, "films": [asdict(one) for one in films]}
    (root / "manifest.json").write_text(json.dumps(about))


def test_true_and_imagined_films_are_judged_apart(measured, tmp_path, capsys):
    out = str(tmp_path / "vlm.json")
    with serving(says(sees)) as (server, url):
        assert main(["judge", str(measured), "--judge", vlm(url), "--out", out]) == 0
        assert len(server.asked) == 10
    said = capsys.readouterr().out
    assert "10 films, 5 of them imagined" in said
    true, imagined = line(said, "vlm tiny ", "true"), line(said, "vlm tiny ", "imagined")
    assert true[3].startswith("1.000 [") and true[-4:] == ["4", "0", "0", "0"]
    assert imagined[2] == "the recorded film of these actions" and imagined[3].startswith("0.500 [")
    assert line(said, "learned ", "true")[3].startswith("0.750") and "need not end as they did" in said
    groups = {one.group for one in find_films([measured]).films}
    assert groups == {("f", 0), ("f", 1), ("f", 2)}  # films of an episode are no independent evidence


def test_a_measured_world_model_has_a_seal_that_covers_its_numbers(measured, capsys):
    path = measured / "manifest.json"
    about = json.loads(path.read_text()) | {"measures": {"psnr": 21.5}}
    path.write_text(json.dumps(sealed(about)))
    assert main(["verify", str(measured)]) == 0
    said = capsys.readouterr().out
    assert f"seal {sealed(about)['digests']['manifest.json']}" in said
    assert "1 of 1 records are as they were written, 0 are not" in said
    path.write_text(path.read_text().replace("21.5", "31.5"))
    with pytest.raises(SystemExit):
        main(["verify", str(measured)])
    assert "manifest.json was changed since it was written" in capsys.readouterr().out


def test_hashes_are_added_to_an_earlier_one(measured, capsys):
    assert main(["verify", str(measured), "--add_hashes", "true"]) == 0
    assert "1 as they were when hashes were added" in capsys.readouterr().out
    (measured / "manifest.json").write_text((measured / "manifest.json").read_text() + "\n")
    with pytest.raises(SystemExit):
        main(["verify", str(measured)])
    assert "manifest.json is not the file that it was" in capsys.readouterr().out


def test_films_that_were_changed_or_are_not_there_are_refused(measured, capsys):
    assert main(["verify", str(measured)]) == 0
    assert "its 10 films are as they were written" in capsys.readouterr().out
    one = measured / "films" / "0001-imagined.mp4"
    kept = one.read_bytes()
    one.write_bytes((measured / "films" / "0000-true.mp4").read_bytes())
    assert main(["judge", str(measured)]) == 2
    assert "0001-imagined.mp4 was changed since it was written" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["verify", str(measured)])
    assert "0001-imagined.mp4 was changed since it was written" in capsys.readouterr().out
    one.unlink()
    assert main(["judge", str(measured)]) == 2 and "is missing" in capsys.readouterr().err
    one.write_bytes(kept)
    outside = Foretold(number=0, kind="true", file="../x.mp4", sha256="", episode=0, first=0, success=None, own=None)
    write(measured, [outside])
    assert main(["judge", str(measured)]) == 2 and "outside of the record" in capsys.readouterr().err
    write(measured, [])
    assert main(["judge", str(measured)]) == 2 and "--kept above 0" in capsys.readouterr().err
