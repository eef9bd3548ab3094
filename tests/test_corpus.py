"""`helpers.data.corpus`: where the data is looked for, the table of utterances, the splits."""

import io
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from helpers import audio, reading, store
from helpers.data import corpus
from helpers.data.corpus import CorpusError

COLUMNS = ["utterance", "subset", "speaker", "chapter", "sex", "seconds", "text", "path", "split"]


def tiny_flac(n_samples=1_600):
    buffer = io.BytesIO()
    sf.write(buffer, np.zeros(n_samples), 16_000, format="FLAC")
    return buffer.getvalue()


FLAC = tiny_flac()


def make_corpus(folder, speakers: dict[str, list[str]]):
    """One short utterance, `<speaker>-7-0000`, for each speaker of each subset."""
    for subset, names in speakers.items():
        for name in names:
            chapter = folder / subset / name / "7"
            chapter.mkdir(parents=True)
            (chapter / f"{name}-7-0000.flac").write_bytes(FLAC)
    return folder


def names(first, count):
    return [str(first + i) for i in range(count)]


# --- where it looks -----------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project beside a shared folder, with data in all four places; returns the places."""
    root = tmp_path / "main"
    for module in (corpus, store):
        monkeypatch.setattr(module, "ROOT", root)
    shared = tmp_path / "shared"
    places = [tmp_path / "chosen", root / "data/LibriSpeech", shared / "LibriSpeech"]
    for place in [*places, root / "data/sample", root / "data/noise", shared / "noise"]:
        place.mkdir(parents=True)
    return [*places, root / "data/sample"]


def test_corpus_is_looked_for_in_order_and_the_choice_is_printed(tree, monkeypatch, capsys):
    monkeypatch.setenv("DENOISER_CORPUS", str(tree[0]))
    printed = ["chosen", "data/LibriSpeech", "../shared/LibriSpeech", "data/sample (the bundled"]
    for place, text in zip(tree, printed, strict=True):
        assert corpus.find_corpus(verbose=True).samefile(place)
        assert text in capsys.readouterr().out
        assert corpus.find_corpus().samefile(place)
        assert not capsys.readouterr().out
        assert corpus.is_sample(place) == (place == tree[-1])
        monkeypatch.delenv("DENOISER_CORPUS", raising=False)
        shutil.rmtree(place)


def test_noise_is_looked_for_in_order_and_may_be_missing(tree, monkeypatch, capsys):
    monkeypatch.setenv("DENOISER_NOISE", str(tree[0]))
    for place in (tree[0], corpus.ROOT / "data/noise", tree[2].with_name("noise")):
        assert corpus.find_noise().samefile(place)
        assert not capsys.readouterr().out
        monkeypatch.delenv("DENOISER_NOISE", raising=False)
        shutil.rmtree(place)
    assert corpus.find_noise(verbose=True) is None
    assert "synthetic noise only" in capsys.readouterr().out


def test_relative_choice_starts_at_the_root(tree, monkeypatch):
    monkeypatch.setenv("DENOISER_CORPUS", "../chosen")
    assert corpus.find_corpus().samefile(tree[0])


@pytest.mark.parametrize(
    ("variable", "find"),
    [("DENOISER_CORPUS", corpus.find_corpus), ("DENOISER_NOISE", corpus.find_noise)],
)
def test_wrong_choice_is_an_error_not_a_fallback(tree, monkeypatch, variable, find):
    monkeypatch.setenv(variable, "/no/such/folder")
    with pytest.raises(CorpusError, match=rf"{variable}=/no/such/folder: .*; .*unset {variable}"):
        find()


# --- the table ----------------------------------------------------------------------------------


def test_table_has_one_sorted_row_an_utterance(tmp_path):
    make_corpus(tmp_path, {"train-clean-100": ["84", "1034"], "dev-clean": ["251"]})
    chapter = tmp_path / "dev-clean/251/7"
    (chapter / "251-7-0001.flac").write_bytes(tiny_flac(8_000))
    (chapter / "251-7.trans.txt").write_text("251-7-0000 GOOD DAY\n251-7-0001 SO\n")
    (tmp_path / "SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
        "84   | F | train-clean-100  | 25.03 | A | B\n251  | M | dev-clean        | 8.0 | C\n"
    )
    table = corpus.read_corpus(tmp_path)
    assert list(table.columns) == COLUMNS
    assert list(table.utterance) == ["1034-7-0000", "251-7-0000", "251-7-0001", "84-7-0000"]
    assert list(table.subset) == ["train-clean-100", "dev-clean", "dev-clean", "train-clean-100"]
    assert list(table.speaker) == ["1034", "251", "251", "84"]
    assert set(table.chapter) == {"7"}
    assert list(table.sex.fillna("?")) == ["?", "M", "M", "F"]
    assert list(table.text.fillna("?")) == ["?", "GOOD DAY", "SO", "?"]
    assert list(table.seconds) == [0.1, 0.1, 0.5, 0.1]
    assert [path.stem for path in table.path] == list(table.utterance)


def test_table_without_listings_and_of_chosen_subsets(tmp_path):
    make_corpus(tmp_path, {"train-clean-100": ["84"], "dev-clean": ["251"]})
    table = corpus.read_corpus(tmp_path, subsets=["dev-clean"])
    assert list(table.utterance) == ["251-7-0000"]
    assert table.sex.isna().all()
    assert table.text.isna().all()


@pytest.mark.parametrize("subsets", [None, ["test-clean"]])
def test_folder_without_utterances_is_an_error(tmp_path, subsets):
    if subsets:
        make_corpus(tmp_path, {"dev-clean": ["251"]})
    with pytest.raises(CorpusError, match=rf"\A{tmp_path}: no .*; run .* download[^\n]*\Z"):
        corpus.read_corpus(tmp_path, subsets)


def test_bundled_sample_has_everything():
    table = corpus.read_corpus(store.ROOT / "data" / "sample")
    assert set(table.split) == {"train", "validation", "test"}
    assert set(table.sex) == {"F", "M"}
    assert table.text.str.fullmatch(r"[A-Z' ]+").all()
    assert (table.groupby("speaker").split.nunique() == 1).all()


# --- splits -------------------------------------------------------------------------------------


def table_of(speakers: dict[str, list[str]], copies=2):
    """A table as `read_corpus` makes it before the splits, several utterances a speaker."""
    rows = [(s, name) for s, people in speakers.items() for name in people for _ in range(copies)]
    return pd.DataFrame(rows, columns=["subset", "speaker"])


def split_of_speakers(table):
    """{speaker: split}, and the proof that no speaker has two."""
    pairs = table.drop_duplicates(["speaker", "split"])
    assert pairs.speaker.is_unique
    return dict(zip(pairs.speaker, pairs.split, strict=True))


def test_shares_of_hashed_speakers():
    splits = pd.Series([corpus.hash_split(str(i)) for i in range(10_000)])
    shares = splits.value_counts(normalize=True).to_dict()
    assert shares == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.03)
    reseeded = [corpus.hash_split(str(i), seed=1) for i in range(10_000)]
    assert (splits != reseeded).mean() > 0.3


def test_splits_are_disjoint_and_stable_when_files_are_added():
    few = table_of({"train-clean-100": names(100, 30)})
    many = table_of({"train-clean-100": names(1, 300), "dev-clean": names(1_000, 30)}, copies=5)
    before, after = (split_of_speakers(corpus.add_splits(table)) for table in (few, many))
    assert set(before.values()) == {"train", "validation", "test"}
    assert before.items() <= after.items()


@pytest.mark.parametrize("short", [None, "train-clean-100", "dev-clean", "test-clean"])
def test_official_roles_need_twenty_speakers_in_each_subset(tmp_path, short):
    subsets = {"train-clean-100": 100, "dev-clean": 200, "test-clean": 300}
    speakers = {name: names(i, 19 if name == short else 20) for name, i in subsets.items()}
    table = corpus.read_corpus(make_corpus(tmp_path, speakers))
    roles = dict(zip(subsets, ["train", "validation", "test"], strict=True))
    is_official = (table.split == table.subset.map(roles)).all()
    assert is_official == (short is None)
    if short:
        assert (table.split == table.speaker.map(corpus.hash_split)).all()


def test_train_subsets_count_together():
    speakers = {"train-clean-100": names(1, 10), "train-clean-360": names(11, 10)}
    speakers |= {"dev-clean": names(100, 20), "test-clean": names(200, 20)}
    table = corpus.add_splits(table_of(speakers))
    assert set(table[table.subset.str.startswith("train")].split) == {"train"}


@pytest.mark.parametrize("count", [3, 25])
def test_other_subsets_are_for_generalisation_only(count):
    clean = {s: names(i, count) for i, s in ((100, "train-clean-100"), (200, "dev-clean"))}
    other = {s: names(i, 3) for i, s in ((400, "train-other-500"), (500, "dev-other"))}
    speakers = clean | other | {"test-clean": names(300, count), "test-other": names(600, 3)}
    table = corpus.add_splits(table_of(speakers))
    assert ((table.split == "other") == table.subset.str.contains("other")).all()


# --- choosing utterances ------------------------------------------------------------------------


def test_pick_takes_speakers_in_turn():
    table = corpus.read_corpus(store.ROOT / "data" / "sample")
    chosen = corpus.pick(table, "test", 2)
    assert chosen.speaker.nunique() == 2
    assert set(chosen.split) == {"test"}
    assert len(corpus.pick(table, "test+train", 3)) == 6
    with pytest.raises(ValueError, match="no utterance of split 'other'"):
        corpus.pick(table, "other", 3)


# --- VoxPopuli --------------------------------------------------------------------------------

VOXPOPULI = """id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender
20180118-0900-PLENARY-3-en_20180118-11:22:33_1\tI "agree.\ti "agree\t96808\ttest\tfemale
20180118-0900-PLENARY-3-en_20180118-11:22:33_2\tNo.\tno\tNone\ttest\tmale
20190117-0900-PLENARY-4-en_20190117-09:00:00_0\tGone.\tgone\t1\ttest\tmale
"""


@pytest.fixture
def voxpopuli(tmp_path):
    """VoxPopuli's tree of one language, the sound of the last row missing."""
    folder = tmp_path / "transcribed_data" / "en"
    (folder / "2018").mkdir(parents=True)
    (folder / "asr_test.tsv").write_text(VOXPOPULI)
    for row in VOXPOPULI.splitlines()[1:3]:
        sf.write(folder / "2018" / f"{row.split()[0]}.ogg", np.zeros(16_000), 16_000)
    return tmp_path


def test_voxpopuli_reads_as_librispeech_does(voxpopuli):
    table = corpus.read_corpus(voxpopuli)
    assert list(table.columns) == [
        *("utterance", "subset", "speaker", "chapter", "sex"),
        *("seconds", "text", "path", "split"),
    ]
    assert list(table.text) == ['I "AGREE', "NO"]
    assert list(table.sex) == ["F", "M"]
    assert list(table.subset) == ["en", "en"]
    assert table.speaker[0] == "96808"
    assert (
        table.speaker[1] == table.chapter[1] == "20180118-0900-PLENARY-3-en"
    )  # nobody's name: the session stands in
    assert list(table.seconds) == [1.0, 1.0]
    assert list(table.split) == [corpus.hash_split(s) for s in table.speaker]


def test_voxpopuli_without_sound(voxpopuli):
    for path in voxpopuli.rglob("*.ogg"):
        path.unlink()
    with pytest.raises(corpus.CorpusError, match=r"asr_test\.tsv.*get_asr_data"):
        corpus.read_corpus(voxpopuli)


def test_voxpopuli_list_of_other_columns(voxpopuli):
    listing = voxpopuli / "transcribed_data" / "en" / "asr_test.tsv"
    listing.write_text(VOXPOPULI.replace("speaker_id", "who"))
    with pytest.raises(corpus.CorpusError, match="speaker_id"):
        corpus.read_corpus(voxpopuli)


# --- other layouts --------------------------------------------------------------------------------

PEOPLE = ["anna", "ben", "carla", "dan", "eva", "finn", "gita", "hugo", "ines", "jan"]


def own(folder, pattern="{}/{}.wav", people=PEOPLE, files=2):
    """Sounds of people, `pattern` filled with the speaker and a number."""
    for name in people:
        for i in range(files):
            path = folder / pattern.format(name, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, np.zeros(8_000), 16_000)
    return folder


@pytest.mark.parametrize("ending", ["wav", "ogg", "mp3"])
@pytest.mark.parametrize("place", ["", "my mother's/wav48/", "a/b/c/d/"])
@pytest.mark.parametrize("inner", ["", "monday/", "monday/raw/late/"])
def test_a_folder_is_a_speaker(tmp_path, ending, place, inner):
    own(tmp_path, f"{place}{{}}/{inner}{{}}.{ending}")
    (tmp_path / "notes.txt").write_text("no sound")
    table = corpus.read_corpus(tmp_path)
    assert list(table.columns) == COLUMNS
    assert sorted(set(table.speaker)) == PEOPLE
    assert len(table) == 20
    assert table.utterance.is_unique
    assert not table.utterance.str.contains("/").any()
    assert list(table.seconds) == pytest.approx([0.5] * 20, abs=0.001)
    assert set(table.split) == {"train", "validation", "test"}
    assert dict(zip(table.speaker, table.split, strict=True)) == {
        name: corpus.hash_split(name) for name in PEOPLE
    }


def test_a_flat_folder_says_what_follows(tmp_path):
    own(tmp_path, "{}_{}.wav")
    message = rf"\A{tmp_path}: 20 sounds lie in no folder .* flatters the scores; make a folder"
    with pytest.warns(audio.AudioWarning, match=message):
        table = corpus.read_corpus(tmp_path)
    assert list(table.speaker) == list(table.utterance)
    assert table.speaker.is_unique
    assert set(table.split) == {"train", "validation", "test"}


def test_librispeech_in_wav(tmp_path):
    own(tmp_path, "dev-clean/{0}/7/{0}-7-000{1}.wav")
    (tmp_path / "dev-clean/anna/7/anna-7.trans.txt").write_text("anna-7-0000 GOOD DAY\n")
    table = corpus.read_corpus(tmp_path)
    assert set(table.subset) == {"dev-clean"}
    assert set(table.chapter) == {"7"}
    assert sorted(set(table.speaker)) == PEOPLE
    assert table.text[0] == "GOOD DAY"
    assert corpus.read_corpus(tmp_path, ["dev-clean"]).equals(table)
    sf.write(tmp_path / "dev-clean" / "stray.wav", np.zeros(800), 16_000)
    with pytest.warns(audio.AudioWarning, match=rf"\A{tmp_path}: 1 sounds outside <subset>"):
        assert corpus.read_corpus(tmp_path).equals(table)


@pytest.mark.parametrize("people", [["anna", "ben"], ["anna", "ben", "carla"]])
def test_too_few_speakers_are_told_what_to_do(tmp_path, people):
    own(tmp_path, people=people)
    message = rf"\A{tmp_path}: too few speakers, none for .*; add speakers, each .* 20 or more"
    with pytest.raises(CorpusError, match=message):
        corpus.read_corpus(tmp_path)


def test_a_split_without_speakers_says_what_there_is(tmp_path):
    table = corpus.read_corpus(make_corpus(tmp_path, {"dev-clean": ["251"]}))
    empty = next(name for name in corpus.SPLITS if name != table.split[0])
    with pytest.raises(ValueError, match=rf"split '{empty}' here .*1 in .*; add speakers"):
        corpus.pick(table, empty, 3)
    with pytest.raises(ValueError, match="no split is named 'tset'; choose from train, "):
        corpus.pick(table, "tset", 3)


def test_two_sounds_of_one_name(tmp_path):
    own(tmp_path)
    own(tmp_path, "{}/{}.flac")
    with pytest.raises(
        CorpusError, match=r"0\.(wav|flac): named as anna/0\.(wav|flac) is; rename one"
    ):
        corpus.read_corpus(tmp_path)


def test_a_sound_that_cannot_be_read_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "av", None)
    path = own(tmp_path) / "anna" / "memo.m4a"
    path.write_bytes(b"\0\0\0\x1cftypM4A " + bytes(1_000))
    with pytest.raises(CorpusError, match=rf"\A{path}: not readable without PyAV .*; `pip install"):
        corpus.read_corpus(tmp_path)
