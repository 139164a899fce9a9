"""What a suite's file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_c import zoo
from robustbench_c.errors import UsageError
from robustbench_c.suites import known_suites, load_suite


@pytest.fixture
def suite(tmp_path):
    def load(text: str, head: str = 'name = "s"\n'):
        path = tmp_path / "s.toml"
        path.write_text(head + text)
        return load_suite(str(path))

    return load


def test_every_combination_is_a_job(suite):
    found = suite(
        """
        [defaults]
        samples = 5
        [[runs]]
        model = ["breast-cancer-mlp", "german-mlp-*"]
        except = ["*-align", "*-hessian"]
        threats = [{ norm = "linf", eps = 0.1 }, { norm = "l2", eps = [0.5, 1] }]
        attack = ["pgd", "auto"]
        set = [["steps=3", "restarts=2"]]
        save-adversarial = true
        minimal = false
        """
    )
    assert len(found.jobs) == 3 * 3 * 2
    assert found.jobs[0].program == "robust-eval"
    assert found.jobs[0].arguments == (
        *("--samples=5", "--model=breast-cancer-mlp", "--norm=linf", "--eps=0.1", "--attack=pgd"),
        *("--set=steps=3", "--set=restarts=2", "--save-adversarial"),
    )
    assert len({job.id for job in found.jobs}) == len(found.jobs)
    models = {word for job in found.jobs for word in job.arguments if "model" in word}
    assert models == {
        "--model=breast-cancer-mlp",
        "--model=german-mlp-explain",
        "--model=german-mlp-standard",
    }


def test_a_job_is_there_once(suite):
    table = '[[runs]]\nmodel = "breast-cancer-mlp"\neps = 0.1\n'
    assert len(suite(table + table).jobs) == 1


def test_words_choose_jobs(suite):
    found = suite('[[runs]]\nmodel = "german-*"\neps = [0.1, 0.2]')
    assert len(found.only(("align", "eps=0.2"))) == 1
    with pytest.raises(UsageError, match="no job of the suite 's' has 'x' and 'y'"):
        found.only(("x", "y"))


MODEL = '[[runs]]\nmodel = "breast-cancer-mlp"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "runs: Field required"),
        ("runs = []", "runs: List should have at least 1 item"),
        ("runs = 3", "runs: Input should be a valid list"),
        ("[[runs]]\n[[runs", "is not TOML"),
        ("color = 3\n" + MODEL, "color: Extra inputs"),
        ("threads = 0\n" + MODEL, "threads: Input should be greater"),
        (MODEL + "esp = 0.1", "run 1: robust-eval has no option 'esp' .* did you mean 'eps'"),
        ("[defaults]\nsampels = 3\n" + MODEL, "defaults: .*'sampels'.* did you mean 'samples'"),
        (MODEL + 'out = "/tmp"', "no option 'out'"),
        (MODEL + "trust-checkpoint = true", "no option 'trust-checkpoint'"),
        (MODEL + "overwrite = true", "no option 'overwrite'"),
        (MODEL + 'command = "rm"', "no command 'rm'; known: eval, corrupt, smooth, train"),
        (MODEL + "command = ['eval']", "no command"),
        (MODEL + 'data = "\\u001b[31m.csv"', "'data' holds what cannot be seen"),
        (
            MODEL + "x = [" + "{ seed = [0, 1] }, " * 5001 + "]",
            "run 1: more than 10000 jobs",
        ),
        (MODEL + "eps = []", "'eps' has no value"),
        (MODEL + "eps = true", "'eps' cannot be True"),
        (MODEL + "eps = [[0.1]]", r"'eps' cannot be \[0.1\]"),
        (MODEL + "attack = 'pgdd'", "no attack 'pgdd'; did you mean 'pgd'"),
        (MODEL + "eps = 'x'", "Invalid value for '--eps': "),
        (MODEL + "minimal = 1", "'minimal' is true or false, not 1"),
        (MODEL + "x = [{ eps = 0.1 }]\neps = 0.2", "'eps' is set twice"),
        (MODEL + "x = [{ eps = 0.1 }]\ny = [{ eps = 0.2 }]", "'eps' is set twice"),
        (MODEL + "x = [{ esp = 0.1 }]", "no option 'esp'"),
        (MODEL + "seed = -1", "greater than or equal to 0"),
        ('[[runs]]\nmodel = "breast-cancer"', "no model 'breast-cancer'; did you mean"),
        ('[[runs]]\nmodel = "x*"', "no model of the zoo matches 'x\\*'"),
        ("[[runs]]\nmodel = 3", "'model' is the name of one, not 3"),
        ('[[runs]]\nmodel = "german-*"\nexcept = "*"', "'except' leaves no model"),
        ('[[runs]]\ncommand = "train"\nrecipe = "pgd"', "give what is trained a 'name'"),
        ('[[runs]]\nmodel = "trained:m"', "no job trains a model of the name 'm'"),
        (
            '[[runs]]\ncommand = "train"\nname = "m"\nrecipe = ["pgd", "ibp"]',
            "two jobs train a model of the name 'm'",
        ),
        (
            MODEL + f"seed = {list(range(200))}\nsamples = {list(range(1, 200))}",
            "run 1: more than 10000 jobs",
        ),
    ],
)
def test_what_is_no_suite(suite, text, words):
    with pytest.raises(UsageError, match=words) as told:
        suite(text)
    assert "\n" not in str(told.value)


def test_a_trainings_batch_size_is_its_own_setting(suite):
    train = '[[runs]]\ncommand = "train"\nname = "m"\nrecipe = "pgd"\nbatch-size = 16\n'
    found = suite("[defaults]\neps = 0.1\nsamples = 3\n" + train + MODEL)
    assert "--batch-size=16" in found.jobs[0].arguments
    assert "--eps=0.1" not in found.jobs[0].arguments  # defaults are those of evaluations
    assert "--eps=0.1" in found.jobs[1].arguments


def test_the_number_of_threads_is_part_of_a_job(suite):
    ids = {suite(f"threads = {n}\n{MODEL}").jobs[0].id for n in (1, 2)}
    assert len(ids) == 2


def test_the_files_of_a_job(suite, tmp_path):
    for name in ("m.safetensors", "m.json", "code.py", "d.csv"):
        (tmp_path / name).write_text("")
    model, data = tmp_path / "m.safetensors", tmp_path / "d.csv"
    text = f"[[runs]]\nmodel = ['{model}', '{tmp_path}/code.py:make']\ndata = '{data}'"
    found = [{Path(name).name for name in job.files} for job in suite(text).jobs]
    assert found == [{"m.safetensors", "m.json", "d.csv"}, {"code.py", "d.csv"}]


def test_no_such_suite(tmp_path):
    (tmp_path / "s.tom").write_text("")
    with pytest.raises(UsageError, match=r"no suite '.*s\.tom'; a suite's file ends in \.toml"):
        load_suite(str(tmp_path / "s.tom"))
    with pytest.raises(UsageError, match="no suite 'zo'; did you mean 'zoo'"):
        load_suite("zo")
    with pytest.raises(UsageError, match=r"cannot read the suite: .*gone\.toml is missing"):
        load_suite(str(tmp_path / "gone.toml"))
    (tmp_path / "big.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match="the limit is 1048576"):
        load_suite(str(tmp_path / "big.toml"))


def test_the_zoos_suite_is_about_every_shipped_model():
    assert known_suites() == ["zoo"]
    jobs = load_suite("zoo").jobs
    names = {w.removeprefix("--model=") for job in jobs for w in job.arguments if "--model" in w}
    assert names == set(zoo.names())
    assert len(jobs) > 40
