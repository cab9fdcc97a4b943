"""GGUF files become ordinary model folders: once, whole or not at all, with tokenizer and chat template."""

import errno
import json
import threading

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from credibly.assets.cache import MARKER
from credibly.backbones import embed, load_backbone, load_classifier
from credibly.backbones import gguf as conversion
from credibly.backbones.gguf import converted, converted_folder, is_whole
from credibly.backbones.sources import source_of
from credibly.errors import AssetError, CrediblyError
from credibly.settings import BackboneSettings

WIDTH, HEADS, HIDDEN, BLOCKS = 32, 4, 64, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = [*SPECIAL, *bytes_to_unicode().values(), "Ġg", "Ġgo", "od"]
CHAT = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"


def write_gguf(path, architecture="llama", seed=0):
    """Write a tiny Llama with a byte-level tokenizer, some of it in blocks of 8 bits."""
    generator = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(48)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(VOCABULARY) - len(SPECIAL)))
    writer.add_token_merges(["Ġ g", "Ġg o", "o d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT)
    for name, shape in shapes().items():
        values = generator.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
        if len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes():
    square, up = (WIDTH, WIDTH), (HIDDEN, WIDTH)
    block = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square),
        **dict.fromkeys(("ffn_gate", "ffn_up"), up),
        "ffn_down": up[::-1],
        **dict.fromkeys(("attn_norm", "ffn_norm"), (WIDTH,)),
    }
    blocks = {f"blk.{n}.{name}.weight": shape for n in range(BLOCKS) for name, shape in block.items()}
    return {"token_embd.weight": (len(VOCABULARY), WIDTH), **blocks, "output_norm.weight": (WIDTH,)}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDIBLY_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "converted"


@pytest.fixture
def file(tmp_path, own_cache):
    (tmp_path / "models").mkdir()
    return write_gguf(tmp_path / "models" / "tiny.gguf")


def never(*arguments):
    raise AssertionError("nothing should be converted")


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 40, 50, 60, 2, 7]])).logits


def test_the_converted_model_gives_the_logits_of_the_file(file):
    direct = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(converted(file), dtype=torch.float32)
    # Exactly where its weights are rounded to bfloat16 as the stored ones are.
    for parameter in direct.parameters():
        parameter.data = parameter.data.bfloat16().float()
    torch.testing.assert_close(logits(again), logits(direct), atol=1e-6, rtol=0)
    assert logits(again).std() > 0.1
    stored = AutoModel.from_pretrained(converted(file))
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}


def test_tokens_special_tokens_and_the_chat_template_survive(file):
    direct = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    again = AutoTokenizer.from_pretrained(converted(file))
    assert again.chat_template == CHAT
    assert (again.bos_token, again.eos_token) == SPECIAL[1:]
    for text in ("so good", "  12 3", "Grüße, 世界!", "<|im_start|>user<|im_end|>"):
        assert again(text)["input_ids"] == direct(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == text
    assert again.convert_ids_to_tokens(again("so good")["input_ids"]) == ["s", "o", "Ġgo", "od"]
    assert again("<|im_end|>")["input_ids"] == [2]
    assert again.model_max_length == 48
    chat = again.apply_chat_template([{"role": "user", "content": "good"}], tokenize=False)
    assert chat == "<|im_start|>good<|im_end|>"


def test_a_file_or_the_folder_that_holds_it_is_a_backbone_and_a_classifier(file):
    embeddings = []
    for name in (file, file.parent):
        backbone = load_backbone(BackboneSettings(name=str(name), precision="fp32"))
        assert (backbone.pooling, backbone.max_tokens, backbone.width) == ("last", 48, WIDTH)
        embeddings.append(embed(backbone, ["so good", "not so good at all"]))
    np.testing.assert_array_equal(*embeddings)
    classifier = load_classifier(BackboneSettings(name=str(file)), ("bad", "good"), 0.1, 0)
    assert classifier.class_names == ("bad", "good")


def test_a_file_is_converted_once_and_what_it_says_is_said(file, own_cache, monkeypatch, caplog):
    folder = converted(file)
    assert [path.name for path in own_cache.iterdir()] == [folder.name]
    assert "tiny.gguf is converted to safetensors; this takes a minute, once" in caplog.text
    assert {"config.json", "model.safetensors", "tokenizer.json", MARKER} <= {
        p.name for p in folder.iterdir()
    }
    monkeypatch.setattr(conversion, "convert", never)
    assert converted(file) == folder
    assert source_of(str(file)) == str(folder)


def test_converting_shows_nothing_of_what_transformers_shows(file, own_cache, capfd):
    converted(file)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


@pytest.mark.parametrize("damage", ["weights gone", "weights cut", "marker gone", "another format"])
def test_a_half_converted_folder_is_noticed_and_made_anew(file, own_cache, damage):
    folder = converted(file)
    weights, marker = folder / "model.safetensors", folder / MARKER
    whole = weights.read_bytes()
    if damage == "weights gone":
        weights.unlink()
    elif damage == "weights cut":
        weights.write_bytes(whole[:-1])
    elif damage == "marker gone":
        marker.unlink()
    else:
        marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 0}))
    assert not is_whole(folder)
    assert converted(file) == folder
    assert is_whole(folder)
    assert weights.read_bytes() == whole
    assert [path.name for path in own_cache.iterdir()] == [folder.name]


def test_an_interrupted_conversion_leaves_nothing(file, own_cache, monkeypatch):
    def interrupted(path, folder):
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            converted(file)
    assert list(own_cache.iterdir()) == []
    assert is_whole(converted(file))


def test_another_file_of_the_same_name_is_converted_anew(file):
    first = converted(file)
    write_gguf(file, seed=1)
    assert converted_folder(file) != first
    assert (converted(file) / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()


def test_of_two_that_convert_at_once_both_get_it(file, own_cache, monkeypatch):
    convert, both, results = conversion.convert, threading.Barrier(2), []

    def together(path, folder):
        with lock:
            convert(path, folder)
        both.wait(timeout=60)

    lock = threading.Lock()
    monkeypatch.setattr(conversion, "convert", together)
    threads = [threading.Thread(target=lambda: results.append(converted(file))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [converted_folder(file)] * 2
    assert is_whole(results[0])
    assert [path.name for path in own_cache.iterdir()] == [results[0].name]


@pytest.mark.parametrize("damage", ["cut", "beginning only", "unknown architecture"])
def test_a_file_that_cannot_be_converted_is_told_by_name(file, own_cache, damage):
    if damage == "unknown architecture":
        write_gguf(file, architecture="clip")
    else:
        whole = file.read_bytes()
        file.write_bytes(whole[: 4 if damage == "beginning only" else -5000])
    with pytest.raises(AssetError, match="cannot be converted") as caught:
        converted(file)
    assert str(file) in str(caught.value)
    assert list(own_cache.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(file, own_cache, monkeypatch):
    def full(path, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conversion, "convert", full)
    with pytest.raises(AssetError, match="free some room there, or set CREDIBLY_HOME"):
        converted(file)
    assert list(own_cache.iterdir()) == []


def test_a_missing_reader_is_told_with_the_install(file, monkeypatch):
    def missing(*arguments, **options):
        raise ImportError("gguf is missing")

    monkeypatch.setattr(conversion.AutoModelForCausalLM, "from_pretrained", missing)
    with pytest.raises(CrediblyError, match=r"pip install 'credibly\[train\]'"):
        converted(file)
