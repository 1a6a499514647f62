#!/usr/bin/env bash
# Makes build/data/emoji.h5 and build/data/emoji/prompts.txt, which configs/sd15/tiny.json reads, where they are missing: the glyphs of
# Debian's fonts-noto-color-emoji, whose package is unpacked and not installed, drawn by make_emoji.py in an environment of its own
# (emoji.txt), whose python is printed last. Needs a build. Environment: ONESTEP_CACHE (default ~/.cache/onestep).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/python_environment.sh"

unpack_font() {
  mkdir "$1/package" && cd "$1/package" && apt-get download fonts-noto-color-emoji && dpkg -x fonts-noto-color-emoji_*.deb . &&
    cp usr/share/fonts/truetype/noto/NotoColorEmoji.ttf "$1/" && cd / && rm -r "$1/package"
}

data=$root/build/data
need_environment emoji "drawing emoji" unpack_font
if [ ! -f "$data/emoji.h5" ]; then
  rm -rf "$data/emoji"
  "$cache/emoji/bin/python" "$root/tools/make_emoji.py" "$cache/emoji/NotoColorEmoji.ttf" "$data/emoji"
  "$root/build/bin/onestep" dataset pack "$data/emoji/pictures" "$data/emoji.h5"
fi
echo "$cache/emoji/bin/python"
