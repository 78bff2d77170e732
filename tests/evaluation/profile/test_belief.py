"""What is believed of streams: priors, planted gains found again, and the choice that follows."""

import numpy as np
import pytest

from accmpeg.errors import UsageError
from accmpeg.evaluation.methods.whole_stream import StreamSetting
from accmpeg.evaluation.profile.belief import LEVERS, believe, levers_of, prior_of
from accmpeg.evaluation.profile.choice import choose, complexity
from accmpeg.evaluation.profile.search import tunings

SOURCE, SMALL = (1280, 720), (640, 360)
PLAIN = StreamSetting()
ALL = [
    StreamSetting(size, b_frames, 0, kind)  # type: ignore[arg-type]
    for size in (None, SMALL)
    for b_frames in (0, 2)
    for kind in ("none", "feedback", "accmodel")
]


def test_a_plain_stream_is_known_and_levers_add_up() -> None:
    belief = prior_of(ALL, SOURCE, SMALL, 0.9)
    assert belief.of(PLAIN) == (0.0, 0.0)
    both, _ = belief.of(StreamSetting(SMALL, b_frames=2))
    assert both == pytest.approx(LEVERS["size"].at(0.9) + LEVERS["b_frames"].at(0.9))


def test_a_small_stream_promises_less_where_more_is_kept() -> None:
    gains = [prior_of(ALL, SOURCE, SMALL, keep).of(StreamSetting(SMALL))[0] for keep in (0.85, 0.90, 0.95)]
    assert gains == sorted(gains)


def test_sizes_between_move_the_lever_by_their_share() -> None:
    half_way = levers_of(StreamSetting((906, 510)), SOURCE, SMALL)
    assert half_way["size"] == pytest.approx(0.5, abs=0.01)
    below = levers_of(StreamSetting((452, 254)), SOURCE, SMALL)
    assert below["size"] == 1.0
    assert below["below the DNN's size"] == pytest.approx(1.0, abs=0.02)
    # A DNN that reads the source's size: all that a smaller stream does is below it.
    assert "size" not in levers_of(StreamSetting((960, 540)), SOURCE, SOURCE)


def test_much_evidence_wins_and_little_leans_on_the_prior() -> None:
    prior = prior_of(ALL, SOURCE, SMALL, 0.9)
    small = StreamSetting(SMALL)
    sure = believe(prior, {small: 0.4}, np.array([[1e-6]]))
    unsure = believe(prior, {small: 0.4}, np.array([[10.0]]))
    assert sure.of(small)[0] == pytest.approx(0.4, abs=0.01)
    assert unsure.of(small)[0] == pytest.approx(prior.of(small)[0], abs=0.01)
    # The same lever under a setting that nobody measured is known a little better, too.
    unmeasured = StreamSetting(SMALL, b_frames=2)
    assert sure.of(unmeasured)[0] > prior.of(unmeasured)[0] + 0.5
    assert sure.of(unmeasured)[1] < prior.of(unmeasured)[1]


@pytest.mark.parametrize("noise_sd", [0.03, 0.15])
def test_the_choice_seldom_loses_on_simulated_sites(noise_sd: float) -> None:
    """Sites drawn from the prior, measured with noise: it saves more than the default, few sites lose."""
    random = np.random.default_rng(0)
    prior = prior_of(ALL, SOURCE, SMALL, 0.9)
    root = np.linalg.cholesky(prior.covariance + 1e-9 * np.eye(len(ALL)))
    default = ALL.index(StreamSetting(SMALL, b_frames=2))
    chosen, fixed = [], []
    for _ in range(400):
        truth = prior.mean + root @ random.standard_normal(len(ALL))
        truth[0] = 0.0
        noisy = truth + noise_sd * random.standard_normal(len(ALL))
        noisy[0] = 0.0
        noise = noise_sd**2 * np.eye(len(ALL))
        noise[0, 0] = 1e-6
        belief = believe(prior, dict(zip(ALL, noisy, strict=True)), noise)
        choice = choose(belief, ALL)[-1].setting
        chosen.append(truth[ALL.index(choice)])
        fixed.append(truth[default])
    assert np.mean(chosen) < np.mean(fixed) - 0.03
    assert np.mean(np.asarray(chosen) > 0.03) < 0.02, "sites on which the choice sends more than plain x264"
    assert np.mean(np.asarray(chosen) > 0.03) < np.mean(np.asarray(fixed) > 0.03)


def test_what_is_not_surely_better_gives_way_to_the_simpler() -> None:
    prior = prior_of(ALL, SOURCE, SMALL, 0.9)
    small, both = StreamSetting(SMALL), StreamSetting(SMALL, b_frames=2)
    gains = {PLAIN: 0.0, small: -0.50, both: -0.51}
    belief = believe(prior, gains, np.diag([1e-6, 1e-4, 1e-4]))
    chain = choose(belief, [PLAIN, small, both])
    assert [step.setting for step in chain] == [PLAIN, small]
    assert complexity(both) > complexity(small)
    assert chain[-1].probability > 0.99


def test_a_site_where_everything_hurts_keeps_plain_x264() -> None:
    prior = prior_of(ALL, SOURCE, SMALL, 0.9)
    belief = believe(prior, {each: 0.3 * (each != PLAIN) for each in ALL}, 1e-4 * np.eye(len(ALL)))
    assert [step.setting for step in choose(belief, ALL)] == [PLAIN]


def test_a_map_is_tuned_in_strength_and_in_what_its_kind_has() -> None:
    by_answers, by_model = (StreamSetting(SMALL, map=kind) for kind in ("feedback", "accmodel"))
    assert not tunings(PLAIN)
    assert [each.name.split("+", 2)[2] for each in tunings(by_answers)] == [
        "strength0.5", "strength1.5", "margin1", "margin3",
    ]  # fmt: skip
    assert [each.name.split("+", 2)[2] for each in tunings(by_model)] == [
        "strength0.5", "strength1.5", "every5", "every20",
    ]  # fmt: skip
    known = [PLAIN, by_answers, *tunings(by_answers)]
    belief = prior_of(known, SOURCE, SMALL, 0.9)
    assert all(complexity(each) == complexity(by_answers) + 1 for each in tunings(by_answers))
    # Nothing is tuned unless it was measured to be better.
    assert choose(belief, known)[-1].setting in (PLAIN, by_answers)


@pytest.mark.parametrize(
    "setting",
    [
        *ALL,
        StreamSetting((416, 234), 2, 10, "accmodel", "medium", 0, map_strength=1.5, map_every=5),
        StreamSetting(map="feedback", map_strength=0.5, map_margin=0),
    ],
)
def test_names_come_back_as_settings(setting: StreamSetting) -> None:
    assert StreamSetting.of_name(setting.name) == setting


@pytest.mark.parametrize(
    "name", ["stream:", "stream:640", "stream:source+b", "stream:source+feeedback", "stream:source+map1"]
)
def test_a_name_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"stream:"):
        StreamSetting.of_name(name)
