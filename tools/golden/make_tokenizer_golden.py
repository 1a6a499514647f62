"""Writes CLIP's merges and the golden ids of the tokenizer that diffusers uses (transformers' CLIPTokenizer) into tests/golden.

    python tools/golden/make_tokenizer_golden.py [--out tests/golden]

clip_merges.txt: the 48,894 merges, from the MIT-licensed file in the open_clip_torch wheel.
clip_tokenizer.json: `strings`, [text, number of content ids, first 16 hex digits of SHA-256 over the ids joined by commas,
the same of the 77 ids]; `code_points`, for each block of 4,096 code points the digest over the ids of "a<c>b" for every one
that is no surrogate; `examples` with all their ids, as a newly made tokenizer gives them; `published`, the same where the
file marks the ends' names as normalized, as that of Stable Diffusion 1.5 does (there the bare name of the padding wins for
the second); `late`, where it marks the padding too.
"""
import argparse
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import random
import tempfile

import tokenizers
import transformers
from transformers import CLIPTokenizer

NUM_MERGES = 49152 - 256 - 2
BLOCK = 4096
EXAMPLES = ["a photo of a cat", "it's 2024, isn't it?!", "café naïve", "", " ", "a <|endoftext|> b", "A<|STARTOFTEXT|>!!b",
            "!!<|EndOfText|>!!", "<|endoftext|>", "don't DON'T we’ll", "İstanbul ΟΔΟΣ ǅ", "１２３ Ⅷ ½ x²", "a\u0000b\ufeffc"]
PUBLISHED = {"a photo of a cat": [320, 1125, 539, 320, 2368],
             "it's 2024, isn't it?!": [585, 568, 273, 271, 273, 275, 267, 2923, 713, 585, 2835],
             "café naïve": [15304, 1097, 35689, 563]}


def merges():
    package = pathlib.Path(importlib.util.find_spec("open_clip").origin).parent  # found, not run: it needs torch
    path = package / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    return lines[1:1 + NUM_MERGES]


def byte_characters():
    prints = list(range(ord("!"), ord("~") + 1)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    rest = [b for b in range(256) if b not in prints]
    return [chr(b) for b in prints] + [chr(256 + i) for i in range(len(rest))]


def write_tokenizer(folder, case):
    letters = byte_characters()
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m.split()) for m in merges()]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges()) + "\n")
    token = lambda text: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True,  # noqa: E731
                          "rstrip": False, "single_word": False}
    begin, end = "<|startoftext|>", "<|endoftext|>"
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77,
              "bos_token": begin if case == "examples" else token(begin),
              "eos_token": end if case == "examples" else token(end),
              "unk_token": end if case == "examples" else token(end), "pad_token": token(end) if case == "late" else end,
              "do_lower_case": True, "errors": "replace", "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def load(case):
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(pathlib.Path(folder), case)
        return CLIPTokenizer.from_pretrained(folder)


def scalar(rng, low, high):
    while True:
        c = rng.randrange(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def hostile_strings():
    rng = random.Random(20240501)
    words = ("a photo of the red astronaut riding horse in space, 8k trending on artstation by greg rutkowski portrait "
             "Highly Detailed STUDIO lighting isn't it's we'll they've I'm he'd 35mm f/1.8 (masterpiece:1.2) [dog|cat]").split()
    strings = ["", " ", "   ", "\t\n\r\x0b\x0c", "\u00a0\u2003\u3000", "\u200b", "\ufeff", "\x00", "\x7f\x80\x9f", "\u180e",
               "\u2028\u2029\u0085", "'", "''s", "'S", "’s", "'ſ", "x's't're've'm'll'd", "'LL 'Ve", "\U0010ffff", "\ufffd"]
    plain = lambda: " ".join(rng.choice(words) for _ in range(rng.randrange(1, 14)))  # noqa: E731
    strings += [plain() for _ in range(200)]
    for plane in range(17):  # assigned or not
        for _ in range(40):
            strings.append("".join(scalar(rng, plane << 16, (plane + 1) << 16) for _ in range(rng.randrange(1, 9))))
    scripts = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x370, 0x530), (0x531, 0x700), (0x900, 0xE00), (0xE00, 0x1200),
               (0x1200, 0x1800), (0x1800, 0x2000), (0x2000, 0x2C00), (0x2C00, 0x3100), (0x3040, 0x3400), (0x4E00, 0xA000),
               (0xA000, 0xAC00), (0xAC00, 0xD7A4), (0xF900, 0x10000), (0x10400, 0x10500), (0x1D400, 0x1D800),
               (0x1F000, 0x1FB00), (0xE0000, 0xE0200)]
    for low, high in scripts:
        for _ in range(18):
            strings.append("".join(rng.choice(["", "", " ", "1", "'s", "."]) + scalar(rng, low, high)
                                   for _ in range(rng.randrange(2, 24))))
    people = ["👩", "👨", "🧑", "👧", "❤️", "🚀", "🏳️", "🏴", "☠️", "💻"]
    for _ in range(120):  # emoji joined, toned, keycaps, flags
        strings.append("".join(rng.choice([rng.choice(people) + rng.choice(["", "🏽", "🏿", "\ufe0f"]), "\u200d", "1\ufe0f\u20e3",
                                           chr(0x1F1E6 + rng.randrange(26)), " ", "a"]) for _ in range(rng.randrange(2, 12))))
    bases = "aeiouAEIOUnsczyYΑΩωιИйкაᄀ가か"
    for _ in range(200):  # combining marks in any order, jamo, singletons
        strings.append("".join(rng.choice([rng.choice(bases), chr(rng.randrange(0x300, 0x370)), chr(rng.randrange(0x1100, 0x1200)),
                                           rng.choice("\u0345\u0327\u0323\u0301\u0308\u05bc\u0653\u09be\u3099\u309a"),
                                           rng.choice("ÅΩK\u212b\u2126\u0958\u1e9b\uf900")]) for _ in range(rng.randrange(2, 16))))
    markup = ["<b>", "</b>", "&amp;", "&lt;", "&#39;", "&#x27;", "<br/>", "&nbsp;", "<!-- x -->", "<|", "|>", "&amp;amp;", "%20",
              "\\u00e9", "<a href='x'>", "]]>"]
    for _ in range(100):
        strings.append("".join(rng.choice([rng.choice(markup), plain(), " "]) for _ in range(rng.randrange(1, 6))))
    ends = ["<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "<|endoftext|", "|endoftext|>", "<<|endoftext|>>",
            "<|endoftext|><|endoftext|>", "< |endoftext|>", "<|end\u200doftext|>", "<|endoftext|>'s", "<|ENDOFTEXT|>'s", "!<|ENDOFTEXT|>!"]
    for _ in range(140):
        strings.append("".join(rng.choice([rng.choice(ends), rng.choice(["", " ", "!!", "a", "7", "é"])])
                               for _ in range(rng.randrange(1, 7))))
    special = "ẞßİıſKÅΣςσǅǄǆᲐაᏏꭰꟋ𐐀𐐨𞤀𞤢ⅧⅷⒶⓐﬀ½²₃①٣४๓〇一"
    for _ in range(140):
        strings.append("".join(rng.choice([rng.choice(special), rng.choice("aB ΟδΣ .'1")]) for _ in range(rng.randrange(2, 20))))
    long_ones = ["a" * 4096, "!" * 4096, "9" * 500, " " * 4096, "ab" * 2048, "the " * 1024, "é" * 2048, "一" * 1365, "😀" * 1024,
                 "supercalifragilisticexpialidocious" * 120, "e\u0301" * 1365, "'s" * 2048]
    while len(long_ones) < 20:
        long_ones.append(" ".join(rng.choice(words) for _ in range(680))[:4096])
    strings += long_ones
    while len(strings) < 2000:
        strings.append("".join(scalar(rng, 0, rng.choice([0x80, 0x800, 0x3000, 0x110000])) for _ in range(rng.randrange(1, 20))))
    return strings[:2000]


def short_digest(ids):
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def content(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def padded(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=77, truncation=True)["input_ids"]


def examples(case):
    return dict(zip(EXAMPLES, padded(load(case), EXAMPLES)))


def code_point_digests(tokenizer):
    digests = []
    for first in range(0, 0x110000, BLOCK):
        texts = [f"a{chr(c)}b" for c in range(first, first + BLOCK) if not 0xD800 <= c < 0xE000]
        lines = "".join(",".join(map(str, ids)) + "\n" for ids in content(tokenizer, texts))
        digests.append(hashlib.sha256(lines.encode()).hexdigest()[:16])
    return digests


def main():
    default_out = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    out = parser.parse_args().out
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
                "open_clip_torch": importlib.metadata.version("open_clip_torch")}
    tokenizer = load("examples")
    print(versions, type(tokenizer).__mro__[:2], tokenizer.backend_tokenizer.normalizer, tokenizer.backend_tokenizer.pre_tokenizer)
    for text, ids in PUBLISHED.items():
        found = content(tokenizer, [text])[0]
        if found != ids:
            raise RuntimeError(f"{text}: published {ids}, found {found}")
    strings = hostile_strings()
    rows = [[text, len(ids), short_digest(ids), short_digest(all_ids)]
            for text, ids, all_ids in zip(strings, content(tokenizer, strings), padded(tokenizer, strings))]
    golden = {"versions": versions} | {case: examples(case) for case in ("examples", "published", "late")}
    golden["code_points"] = code_point_digests(tokenizer)
    (out / "clip_merges.txt").write_text("#version: 0.2\n" + "\n".join(merges()) + "\n")
    head = json.dumps(golden, ensure_ascii=False)[:-1]
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = out / "clip_tokenizer.json"
    path.write_text(f'{head}, "strings": [\n{body}\n]}}\n')
    print(f"{path}: {len(rows)} strings, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
