"""lerobot's vision-language-action policies, saved by lerobot around tiny random models, act here as there.

Nothing is downloaded: the vision-language model, its tokenizer and its processor are made here, of transformers' own
classes. lerobot knows pi0 in one size only; there the numbers of its size are replaced, in saving and in opening.
"""

import importlib
import json
import shutil

import numpy as np
import pytest
import torch

from understudy.configs.spec import STATE, Embodiment
from understudy.eval.compose.fresh import open_mixture
from understudy.eval.compose.recipe import _opened, instructed, recipe_of
from understudy.eval.compose.settings import Settings
from understudy.policies.agent.open import Acting, instruct, open_agent
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.field import sample
from understudy.policies.foreign.chunks import misfits
from understudy.policies.foreign.flow import ForeignFlow
from understudy.policies.foreign.folder import Foreign
from understudy.policies.foreign.planner import ChunkPlanner, load_foreign
from understudy.policies.foreign.scale import ForeignError, ForeignWarning
from understudy.policies.learning.checkpoint import fingerprint
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.policy import LaneNoise, Past

pytest.importorskip("transformers", reason="transformers is not installed")

FRONT = "observation.images.front"
WORDS = "<pad> <unk> <bos> <eos> <fake_token_around_image> <global-img> <image> <end_of_utterance>".split()
CHUNK, STEPS, TEXT = 6, 3, "push the block"
TINY = {"chunk_size": CHUNK, "n_action_steps": 3, "max_state_dim": 5}
KINDS = {
    "smolvla": {"num_steps": STEPS, "num_vlm_layers": 2, "resize_imgs_with_padding": (64, 64)},
    "pi0": {"num_inference_steps": STEPS, "image_resolution": (28, 28)},
    "pi05": {"num_inference_steps": STEPS, "image_resolution": (28, 28)},
}
BODY = Embodiment(
    name="pusht", action=("x", "y"), action_units=("px", "px"), limits=((0.0, 512.0),) * 2, rate=10.0,
    state=("x", "y"), state_units=("px", "px"), cameras={"front": (32, 48)},
)  # fmt: skip


def write_model(folder):
    """A vision-language model without weights, as `from_pretrained` of transformers finds it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Idefics3ImageProcessor, Idefics3Processor, PreTrainedTokenizerFast, SmolVLMConfig

    letters = [*WORDS, "\n", *"abcdefghijklmnopqrstuvwxyz 0123456789,:;-"]
    spelled = Tokenizer(models.WordLevel({word: place for place, word in enumerate(letters)}, unk_token="<unk>"))
    spelled.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    named = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), WORDS, strict=False))
    images = dict(zip(("fake_image_token", "global_image_token", "image_token"), WORDS[4:], strict=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled, extra_special_tokens=images | {"end_of_utterance_token": WORDS[7]}, **named
    )
    pictures = Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 64})
    Idefics3Processor(pictures, tokenizer, image_seq_len=4).save_pretrained(folder)
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "pad_token_id": 0}
    seen = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    seen |= {"image_size": 64, "patch_size": 16}
    SmolVLMConfig(
        text_config=text, vision_config=seen, scale_factor=2, image_token_id=6, pad_token_id=0
    ).save_pretrained(folder)


def shrink(patch, kind):
    """Let lerobot build pi0 and pi0.5 in a size for tests; it has no setting for it."""
    module = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    small = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    patch.setattr(module, "get_gemma_config", lambda _: module.GemmaConfig(**small))
    whole = module.PaliGemmaForConditionalGenerationWithPiGemma
    expert = module.PiGemmaForCausalLM

    def of_whole(config):
        config.text_config.vocab_size = config.vocab_size = 64
        config.image_token_index = config.image_token_id = 63
        for name, value in {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}.items():
            setattr(config.vision_config, name, value)
        config.vision_config.intermediate_size, config.vision_config.projection_dim = 64, 32
        config.projection_dim = 32
        return whole(config)

    def of_expert(config):
        config.vocab_size = 64
        return expert(config)

    patch.setattr(module, "PaliGemmaForConditionalGenerationWithPiGemma", of_whole)
    patch.setattr(module, "PiGemmaForCausalLM", of_expert)


@pytest.fixture(scope="module")
def save(lerobot, tmp_path_factory):
    """A checkpoint saved by lerobot itself; `vlm` and `tokenizer` lie in its folder."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    vlm = tmp_path_factory.mktemp("hub") / "vlm"
    write_model(vlm)
    numbers = {
        STATE: {"mean": [250.0, 200.0], "std": [80.0, 90.0], "q01": [0.0, 10.0], "q99": [500.0, 490.0]},
        "action": {"mean": [230.0, 290.0], "std": [100.0, 95.0], "q01": [12.0, 25.0], "q99": [511.0, 505.0]},
    }
    stats = {key: {name: torch.tensor(value) for name, value in of.items()} for key, of in numbers.items()}

    def make(kind, **settings):
        torch.manual_seed(0)
        settings = TINY | KINDS[kind] | {"max_action_dim": 2} | settings
        if kind == "smolvla":
            settings |= {"vlm_model_name": str(vlm), "load_vlm_weights": False}
        pictures = {FRONT: PolicyFeature(FeatureType.VISUAL, (3, 32, 48))}
        config = make_policy_config(
            kind,
            input_features={STATE: PolicyFeature(FeatureType.STATE, (2,)), **pictures},
            output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
            device="cpu",
            push_to_hub=False,
            **settings,
        )
        policy = get_policy_class(kind)(config).eval()
        folder = tmp_path_factory.mktemp(kind) / "pretrained_model"
        policy.save_pretrained(folder)
        with pytest.MonkeyPatch.context() as patch:
            of_hub = importlib.import_module("lerobot.processor.tokenizer_processor").AutoTokenizer
            patch.setattr(of_hub, "from_pretrained", lambda _, known=of_hub.from_pretrained: known(str(vlm)))
            for processor in make_pre_post_processors(config, dataset_stats=stats):
                processor.save_pretrained(folder)
        shutil.copytree(vlm, folder / "tokenizer", ignore=shutil.ignore_patterns("config.json", "p*.json"))
        if kind == "smolvla":
            shutil.copytree(vlm, folder / "vlm")
            config_file = folder / "config.json"
            config_file.write_text(config_file.read_text().replace(str(vlm), "nobody/no-such-model"))
        (folder / "embodiment.json").write_text(BODY.to_json())
        return folder

    return make


@pytest.fixture(scope="module")
def folder(save):
    return save("smolvla")


@pytest.fixture(scope="module")
def policy(folder):
    return load_foreign(folder, task=TEXT)[0]


@pytest.fixture
def known_crop(monkeypatch):
    """SmolVLA's own loop cuts its cache back to a length, which newer transformers than lerobot asks for refuse."""
    if misfits("transformers"):
        from transformers.cache_utils import DynamicCache

        def crop(cache, length):
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]

        monkeypatch.setattr(DynamicCache, "crop", crop)


def past(lanes=3, size=(32, 48)):
    rng = torch.Generator().manual_seed(1)
    return Past(
        obs={
            STATE: torch.rand(lanes, 1, 2, generator=rng) * 500,
            FRONT: torch.randint(0, 256, (lanes, 1, *size, 3), generator=rng).to(torch.uint8),
        },
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 2),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.zeros(lanes, dtype=torch.int64),
    )


def noise(lanes=3):
    return LaneNoise(5, np.arange(lanes), np.zeros(lanes, np.int64))


class Stock:
    """lerobot's own policy and processors of a checkpoint, in its own words."""

    def __init__(self, folder):
        from lerobot.policies.factory import make_pre_post_processors

        self.policy = Foreign(folder).build()
        tokenizer = {"tokenizer_processor": {"tokenizer_name": str(folder / "tokenizer")}}
        self.before, self.after = make_pre_post_processors(
            self.policy.config, pretrained_path=str(folder), preprocessor_overrides=tokenizer
        )

    def seen(self, past, task=TEXT):
        pictures = past.obs[FRONT][:, 0].permute(0, 3, 1, 2).float() / 255
        return self.before({STATE: past.obs[STATE][:, 0], FRONT: pictures, "task": [task] * len(past.now)})

    def chunks(self, past, noise, task=TEXT):
        """(B, n, T, D) for noise (B, n, T, width), one candidate after the other."""
        parts = [
            self.after(self.policy.predict_action_chunk(self.seen(past, task), noise=noise[:, place]))
            for place in range(noise.shape[1])
        ]
        return torch.stack(parts, 1)


@pytest.mark.parametrize("width", [2, 5])
def test_smolvla_plans_what_lerobot_says(save, known_crop, width):
    folder = save("smolvla", max_action_dim=width)
    policy, seen = load_foreign(folder, task=TEXT)[0], past()
    assert isinstance(policy, ForeignFlow) and isinstance(policy, torch.nn.Module) and policy.scheduler == "euler"
    wanted = Stock(folder).chunks(seen, noise().normal(4, CHUNK, width))
    found = policy.plan(seen, 4, noise()).future
    assert (found - wanted).abs().max() < 1e-3, "px of 500"
    assert found.std() > 1, "candidates differ"
    stock, rows = Stock(folder), noise().normal(1, CHUNK, width)[:, 0]
    executed = [stock.after(stock.policy.select_action(stock.seen(seen), noise=rows)) for _ in range(3)]
    assert (policy.plan(seen, 1, noise()).future[:, 0, :3] - torch.stack(executed, 1)).abs().max() < 1e-3
    assert (policy.n_action_steps, policy.window.horizon, policy.sampler.steps) == (3, CHUNK, STEPS)


def test_its_black_box_says_the_same_from_its_own_noise(folder, known_crop):
    box, seen = load_foreign(folder, black_box=True, task=TEXT)[0], past()
    assert isinstance(box, ChunkPlanner) and box.window.horizon == CHUNK
    assert box.plan(seen, 2, noise()).future.isfinite().all()


def test_what_is_seen_is_encoded_once_for_all_candidates(folder, monkeypatch):
    policy, calls = load_foreign(folder, task=TEXT)[0], []
    model = policy.chunks.policy.model
    real = model.embed_prefix
    monkeypatch.setattr(model, "embed_prefix", lambda *a, **k: calls.append(len(k["state"])) or real(*a, **k))
    many = policy.plan(past(), 5, noise()).future
    assert calls == [3], "once for three lanes, whatever the candidates"
    assert (many[:, :1] - policy.plan(past(), 1, noise()).future).abs().max() < 1e-3


def test_the_field_is_the_velocity_of_its_network(folder, policy, known_crop):
    stock, seen = Stock(folder), past(2)
    field, start = policy.field(seen, 2), noise(2).normal(2, CHUNK, 2)
    asked = []
    real = stock.policy.model.denoise_step

    def told(**handed):
        asked.append((handed["x_t"], handed["timestep"], velocity := real(**handed)))
        return velocity

    stock.policy.model.denoise_step = told
    stock.chunks(seen, start)
    for number, (x, time, velocity) in enumerate(asked):
        t = min(float(time[0]), 0.999)
        if number % STEPS == 0:
            continue  # pure noise is at no finite level
        s, lane = t / (1 - t), number // STEPS
        found = field((x * (1 + s))[:, None].expand(field.shape), s)[:, lane]
        assert (found - (x - t * velocity)).abs().max() < 1e-4
    levels = [t / (1 - t) for t in (0.99, 0.66, 0.33)]
    walked = sample(field, start, [*levels, 0.0], clip=None)
    assert walked.isfinite().all() and walked.shape == field.shape


def test_padded_dimensions_make_no_chance_of_the_field(save):
    policy, seen = load_foreign(save("smolvla", max_action_dim=5), task=TEXT)[0], past(2)
    y = noise(2).normal(3, CHUNK, 2)
    assert torch.equal(policy.field(seen, 3)(y, 1.0), policy.field(seen, 3)(y, 1.0))


def test_the_text_of_the_task_reaches_it_and_its_mixtures(folder, policy, tmp_path, capsys):
    seen, other = past(), load_foreign(folder, task="pull it back")[0]
    assert not torch.equal(policy.plan(seen, 1, noise()).future, other.plan(seen, 1, noise()).future)
    agent, _ = open_agent(Acting(policy=str(folder), block=3), lambda: BODY, TEXT)
    assert agent.planner.task_text == TEXT and "reads the text of its task" in capsys.readouterr().out
    assert torch.equal(agent.planner.plan(seen, 1, noise()).future, policy.plan(seen, 1, noise()).future)

    mixture = Mixture([load_policy(folder)[0], load_policy(folder)[0]], [0.5, 0.5]).eval()
    save_mixture(tmp_path / "mix", mixture, [folder, folder])
    again, _ = load_policy(tmp_path / "mix")
    assert isinstance(again.parents[0], ForeignFlow)
    assert instruct(again, TEXT) and again.task_text == TEXT
    first = again.plan(seen, 2, noise()).future
    alone = load_foreign(folder, task=TEXT)[0]
    alone.sampler = again.sampler
    assert (first - alone.plan(seen, 2, noise()).future).abs().max() < 1e-2, "composed with itself it is itself"
    instruct(again, "pull it back")
    assert not torch.equal(first, again.plan(seen, 2, noise()).future)
    with pytest.warns(ForeignWarning, match="neither the world nor --task_text gives one"):
        instruct(again, "")


def test_the_search_of_a_composition_tells_its_parents_the_task(folder, tmp_path):
    world = {"type": "pusht-mujoco", "cameras": {"front": [32, 48]}}

    def told(**changes):
        asked = Settings(
            parents=(str(folder), str(folder)), world=world, out=str(tmp_path / "out"), device="cpu", **changes
        )
        mixture, paths = open_mixture(asked, asked.parents)
        assert instructed(asked, mixture) == mixture.task_text
        recipe = recipe_of(asked, mixture, (0.5, 0.5), paths)
        _opened.clear()  # as in a worker
        acting = recipe.actor(None).planner
        assert [one.chunks.task for one in acting.parents] == [one.chunks.task for one in mixture.parents]
        return {one.chunks.task for one in acting.parents}

    assert told() == {"pusht-mujoco"} and told(task_text=TEXT) == {TEXT}


def test_pictures_of_any_size_are_fitted_as_lerobot_fits_them(folder, policy, known_crop):
    seen = past(size=(48, 32))
    wanted = Stock(folder).chunks(seen, noise().normal(1, CHUNK, 2))
    assert (policy.plan(seen, 1, noise()).future - wanted).abs().max() < 1e-3


def test_a_place_for_a_camera_that_is_not_there_stays_empty(save, known_crop):
    folder = save("smolvla", empty_cameras=1)
    assert (
        f"{FRONT.rpartition('.')[0]}.empty_camera_0"
        in json.loads((folder / "config.json").read_text())["input_features"]
    )
    policy = load_foreign(folder, task=TEXT)[0]
    assert set(policy.inputs) == {STATE, FRONT}
    wanted = Stock(folder).chunks(past(), noise().normal(1, CHUNK, 2))
    assert (policy.plan(past(), 1, noise()).future - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("lacking", ["vlm", "tokenizer"])
def test_what_is_missing_is_named_with_the_folder_to_put_it(folder, tmp_path, lacking):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / lacking)
    pipeline = (copy / "policy_preprocessor.json").read_text()
    held = json.loads(pipeline)["steps"][3]["config"]["tokenizer_name"]
    (copy / "policy_preprocessor.json").write_text(pipeline.replace(held, "nobody/no-such-model"))
    with pytest.raises(
        ForeignError, match=f"needs the {lacking} 'nobody/no-such-model'.*put a copy of it into {copy / lacking}"
    ):
        load_foreign(copy)


def test_another_tokenizer_is_another_policy(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(folder)
    file = copy / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"x"', '"X"'))
    assert fingerprint(copy) != fingerprint(folder)


def test_actions_that_are_more_than_scaled_have_no_field(save, known_crop):
    folder = save("smolvla")
    config = json.loads((folder / "config.json").read_text())
    assert isinstance(load_foreign(folder)[0], ForeignFlow)
    (folder / "config.json").write_text(json.dumps(config | {"adapt_to_pi_aloha": True}))
    with pytest.raises(ForeignError, match="does not plan"):
        load_foreign(folder)  # Aloha has 14 joints, and this body two


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_pi0_plans_what_lerobot_says_or_names_the_versions_it_needs(save, monkeypatch, kind):
    if importlib.import_module("importlib.metadata").version("lerobot") < "0.6":
        pytest.skip("pi0 of lerobot 0.4 wants a transformers of its own")
    shrink(monkeypatch, kind)
    folder, seen = save(kind, max_action_dim=5), past()
    if misfits("transformers"):
        with pytest.raises(ForeignError, match=r"transformers \S+ is installed, lerobot asks for"):
            load_foreign(folder, task=TEXT)
        return
    policy = load_foreign(folder, task=TEXT)[0]
    wanted = Stock(folder).chunks(seen, noise().normal(3, CHUNK, 5))
    assert (policy.plan(seen, 3, noise()).future - wanted).abs().max() < 1e-3, "px of 500"
    other = load_foreign(folder, task="pull it back")[0]
    assert not torch.equal(policy.plan(seen, 1, noise()).future, other.plan(seen, 1, noise()).future)
    (folder / "tokenizer").rename(folder / "gone")
    with pytest.raises(ForeignError, match="needs the tokenizer 'google/paligemma-3b-pt-224'.*put a copy of it into"):
        load_foreign(folder)


@pytest.mark.filterwarnings("ignore::understudy.policies.foreign.scale.ForeignWarning")
def test_it_is_judged_steered_and_resampled_in_a_world_with_a_camera(folder, tmp_path, capsys):
    from understudy.eval.evaluate.evaluate import Eval, evaluate

    (copy := shutil.copytree(folder, tmp_path / "copy")).joinpath("embodiment.json").unlink()
    world = {"type": "pusht", "horizon": 6, "cameras": {"image": [64, 64]}}
    asked = {"world": world, "episodes": 2, "block": 2, "videos": 0, "policy": str(copy)}
    one = evaluate(Eval(out=str(tmp_path / "one"), **asked))
    told = one.manifest["agent"]
    assert one.manifest["policy"]["type"] == "lerobot/smolvla" and one.manifest["policy"]["scheduler"] == "euler"
    assert told["task_text"] and told["sampler"]["steps"] == STEPS
    steered = evaluate(Eval(out=str(tmp_path / "two"), candidates=3, critic="random", **asked))
    quick = evaluate(Eval(out=str(tmp_path / "three"), steps=2, task_text="pull", **asked))
    assert quick.manifest["agent"]["sampler"]["steps"] == 2
    told = steered.manifest["agent"]
    assert (told["candidates"], told["critic"]) == (3, "random") and quick.manifest["agent"]["task_text"] == "pull"
    assert len(one.rows) == len(steered.rows) == len(quick.rows) == 2
