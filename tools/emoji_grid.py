#!/usr/bin/env python3
"""Draws the captioned picture of a finished configs/sd15/tiny.json: real emoji, the teacher's in 25 steps and in one, the student's.

    python tools/emoji_grid.py JOBS EMOJI OUT.png

JOBS is a coordinator's folder of jobs with one run of the pipeline (demo-out-text/data/jobs), EMOJI what make_emoji.py made
(build/data/emoji). A column is a caption, read below it; of each source the first images of the caption, none picked. Needs Pillow with
FreeType.
"""
import argparse
import pathlib

from PIL import Image, ImageDraw, ImageFont

CELL, BORDER = 66, 1  # of an evaluation's panel.png: a row a class
IMAGES = 2            # of each source
LABEL_WIDTH, CAPTION_HEIGHT, GAP = 92, 34, 4
WORDS = {"cat face": "cat\nface", "panda face": "panda\nface", "frog face": "frog\nface", "soccer ball": "soccer\nball",
         "slice of pizza": "slice of\npizza", "jack-o-lantern": "jack-o-\nlantern"}  # where a caption is broken


def only(jobs, name):
    found = sorted(jobs.glob(f"{name}-[0-9]*/panel.png"))
    if len(found) != 1:
        raise SystemExit(f"emoji_grid: {jobs}/{name}-*/panel.png: expected one, found {len(found)}")
    return found[0]


def of_panel(path, classes):
    panel = Image.open(path).convert("RGB")
    if panel.height != classes * CELL or panel.width < IMAGES * CELL:
        raise SystemExit(f"emoji_grid: {path}: expected {classes} rows of {CELL} pixels, found {panel.height}")
    side = CELL - 2 * BORDER
    corners = [[(i * CELL + BORDER, c * CELL + BORDER) for c in range(classes)] for i in range(IMAGES)]
    return [[panel.crop((x, y, x + side, y + side)) for x, y in row] for row in corners]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=pathlib.Path)
    parser.add_argument("emoji", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    captions = (options.emoji / "prompts.txt").read_text().splitlines()
    pictures = options.emoji / "pictures"
    real = [[Image.open(pictures / f"{c:02d}-{i:03d}.png") for c in range(len(captions))] for i in range(IMAGES)]
    judged = {"teacher,\n25 steps": "evaluate_teacher", "teacher,\n1 step": "evaluate_teacher_one_step", "student,\n1 step": "evaluate_one_step"}
    sources = [("real", real)] + [(label, of_panel(only(options.jobs, name), len(captions))) for label, name in judged.items()]
    height = len(sources) * (IMAGES * CELL + GAP) + CAPTION_HEIGHT
    grid = Image.new("RGB", (LABEL_WIDTH + len(captions) * CELL, height), "white")
    write = ImageDraw.Draw(grid)
    font = ImageFont.load_default(13)
    for s, (label, rows) in enumerate(sources):
        top = s * (IMAGES * CELL + GAP)
        write.multiline_text((4, top + IMAGES * CELL // 2), label, "black", font, anchor="lm")
        for i, row in enumerate(rows):
            for c, image in enumerate(row):
                grid.paste(image, (LABEL_WIDTH + c * CELL + BORDER, top + i * CELL + BORDER))
    for c, caption in enumerate(captions):
        place = (LABEL_WIDTH + c * CELL + CELL // 2, height - CAPTION_HEIGHT)
        write.multiline_text(place, WORDS.get(caption, caption), "black", font, anchor="ma", align="center", spacing=1)
    grid.quantize(256).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
