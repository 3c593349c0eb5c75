"""Makes pairs of a picture and its name: emoji as Noto Color Emoji draws them (OFL 1.1), and what the Unicode Common
Locale Data Repository calls them in English and in Yoruba (Unicode licence).

    sudo apt install fonts-noto-color-emoji unicode-cldr-core
    python prepare.py

One emoji in ten is held out of both languages. Its picture is never seen in training; parts of its name may be.
"""

import argparse
import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
CLDR = Path("/usr/share/unicode/cldr/common")
DRAWN = 109  # the one size that the font's bitmaps have
SIZE = 64


def names(cldr: Path, language: str) -> dict[str, str]:
    """What each character is called."""
    found = {}
    for folder in ("annotations", "annotationsDerived"):
        for one in ElementTree.parse(cldr / folder / f"{language}.xml").iter("annotation"):
            if one.get("type") == "tts" and one.text and one.get("cp"):
                found[one.attrib["cp"]] = one.text
    return found


def picture(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The emoji on white; None where the font has no picture, or only its parts side by side."""
    left, top, right, bottom = font.getbbox(emoji)
    if not 0 < right - left <= 1.3 * DRAWN:
        return None
    canvas = Image.new("RGB", (int(right - left), int(bottom - top)), "white")
    ImageDraw.Draw(canvas).text((-left, -top), emoji, font=font, embedded_color=True)
    colours = canvas.getcolors(256)
    if colours is not None and len(colours) < 3:
        return None
    side = max(canvas.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(canvas, ((side - canvas.width) // 2, (side - canvas.height) // 2))
    return square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--cldr", type=Path, default=CLDR)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data")
    given = parser.parse_args()
    font = ImageFont.truetype(str(given.font), DRAWN, layout_engine=ImageFont.Layout.RAQM)
    (given.to / "pictures").mkdir(parents=True, exist_ok=True)
    called = {language: names(given.cldr, language) for language in ("en", "yo")}
    rows: dict[str, list[dict[str, str]]] = {
        f"{part}-{language}": [] for part in ("train", "test") for language in called
    }
    seen: set[bytes] = set()
    for emoji in sorted(called["en"]):
        image = picture(emoji, font)
        if image is None or image.tobytes() in seen:  # one picture for two: a name would be right for both
            continue
        seen.add(image.tobytes())
        code = "-".join(f"{ord(char):x}" for char in emoji)
        image.save(given.to / "pictures" / f"{code}.png")
        part = "test" if hashlib.sha256(code.encode()).digest()[0] < 26 else "train"
        for language, names_of in called.items():
            if emoji in names_of:
                row = {"picture": f"pictures/{code}.png", "name": names_of[emoji], "emoji": emoji}
                rows[f"{part}-{language}"].append(row)
    for name, found in rows.items():
        (given.to / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
        print(f"{given.to / name}.jsonl: {len(found):,} rows")


if __name__ == "__main__":
    main()
