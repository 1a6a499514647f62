#!/usr/bin/env python3
"""Draws captioned pictures of emoji for configs/sd15/tiny.json: PNG files, dataset.json with their classes, prompts.txt.

    python tools/make_emoji.py NotoColorEmoji.ttf FOLDER [--count 64] [--side 64]

Of each emoji COUNT pictures: its glyph on a plain background of random light colour, at a random size, place and orientation. Line c of
FOLDER/prompts.txt is the caption of class c, the emoji's Unicode name in lower case. Needs Pillow with FreeType. Equal fonts and an equal
Pillow give equal bytes. `onestep dataset pack FOLDER/pictures emoji.h5` makes the image file of it.
"""
import argparse
import json
import pathlib
import random
import unicodedata

from PIL import Image, ImageDraw, ImageFont

EMOJI = "\U0001F34E\U0001F34C\U0001F33B\U0001F431\U0001F43C\U0001F438\U0001F419\u26BD\U0001F680\U0001F697\U0001F383\U0001F355"
BITMAP_SIZE = 109  # the one size of the font's bitmaps
SEED = 1


def glyph_of(character, font):
    """The emoji on a transparent square that just holds it."""
    left, top, right, bottom = font.getbbox(character)
    picture = Image.new("RGBA", (right - left, bottom - top))
    ImageDraw.Draw(picture).text((-left, -top), character, font=font, embedded_color=True)
    picture = picture.crop(picture.getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def draw(glyph, side, draws):
    size = round(side * draws.uniform(0.72, 0.9))
    scaled = glyph.resize((size, size), Image.Resampling.LANCZOS)
    if draws.random() < 0.5:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = Image.new("RGB", (side, side), tuple(draws.randint(200, 255) for _ in range(3)))
    slack = side - size
    place = tuple(slack // 2 + draws.randint(-slack // 3, slack // 3) for _ in range(2))
    picture.paste(scaled, place, scaled)
    return picture


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("font")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=64, help="pictures of each emoji")
    parser.add_argument("--side", type=int, default=64, help="pixels")
    options = parser.parse_args()
    font = ImageFont.truetype(options.font, BITMAP_SIZE)
    pictures = options.folder / "pictures"
    pictures.mkdir(parents=True)
    labels = []
    for label, character in enumerate(EMOJI):
        glyph = glyph_of(character, font)
        draws = random.Random(f"{SEED} {label}")
        for number in range(options.count):
            name = f"{label:02d}-{number:03d}.png"
            draw(glyph, options.side, draws).save(pictures / name)
            labels.append([name, label])
    (pictures / "dataset.json").write_text(json.dumps({"labels": labels}))
    names = [unicodedata.name(character).lower() for character in EMOJI]
    (options.folder / "prompts.txt").write_text("".join(name + "\n" for name in names))
    print(f"{len(labels)} pictures of {len(names)} emoji in {options.folder}")


if __name__ == "__main__":
    main()
