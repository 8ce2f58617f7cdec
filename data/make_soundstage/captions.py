"""Words about scenes: a scene described, and captioned snippets for pretraining encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avadclip_lite.config import XD_CLASSES, XD_STRIDE
from data.make_soundstage.inserts import look_words, shot
from data.make_soundstage.sample import SNIPPET_SPACE, choice, draw_seed, draw_spot
from data.make_soundstage.world import (
    ANOMALIES,
    CODE_OF,
    DISTRACTORS,
    FPS,
    LIGHTS,
    PLACES,
    STAGES,
    Event,
    Fault,
    Scene,
    World,
)


def _light_words(scene: Scene) -> str:
    if scene.place == "corridor":
        return ""
    return {"day": " by day", "dusk": " at dusk", "night": " at night"}[scene.light]


def _weather_words(scene: Scene) -> str:
    return {"clear": "", "rain": " in the rain", "fog": " in fog", "snow": " in snow"}[
        scene.weather
    ]


def describe(scene: Scene) -> str:
    """The scene in words, one line an event."""
    lines = [
        f"{setting(scene)}, {scene.snippets} snippets ({scene.duration:.1f} s), labels "
        f"{'-'.join(scene.labels)}"
    ]
    for event in scene.events:
        senses = [
            ("seen", event.visible, event.unseen),
            ("heard", event.audible, event.unheard),
        ]
        told = ", ".join(
            name if there else f"not {name} ({why.replace('_', ' ')})"
            for name, there, why in senses
        )
        what = event.kind.replace("_", " ") + (f" ({event.code})" if event.code else "")
        lines.append(f"  frames {event.start:4d} to {event.end:4d}: {what}: {told}")
    static = [fault for fault in scene.faults if fault.kind.endswith("_static")]
    if static:
        lines.append(f"  {len(static)} bursts of static over picture or sound")
    for fault in (f for f in scene.faults if f not in static):
        what = fault.kind.replace("_", " ")
        lines.append(f"  frames {fault.start:4d} to {fault.end:4d}: sensor fault: {what}")
    return "\n".join(lines)


def setting(scene: Scene) -> str:
    """Place, light and weather in words: "street by night, in the rain"."""
    return f"{scene.place}{_light_words(scene)}{_weather_words(scene)}"


# --- captioned snippets, for pretraining encoders ---------------------------------------------

_PREPOSITION = {"corridor": "in a", "stadium": "in a"}

# {at}: "on a street at night in the rain"
_CAPTIONS: dict[str, tuple[str, ...]] = {
    "fighting": (
        "a photo of fighting {at}",
        "two people fighting {at}",
        "fighting {at}",
        "people fighting with fists {at}",
    ),
    "shooting": (
        "a photo of a shooting {at}",
        "a shooting {at}",
        "a man shooting with a gun {at}",
        "shooting {at}",
    ),
    "riot": (
        "a photo of a riot {at}",
        "a riot {at}",
        "an angry crowd in a riot {at}",
        "riot {at}",
    ),
    "abuse": (
        "a photo of abuse {at}",
        "abuse {at}",
        "abuse, a man beating a person on the ground {at}",
        "a person hurt by abuse {at}",
    ),
    "car accident": (
        "a photo of a car accident {at}",
        "a car accident {at}",
        "two cars in a car accident {at}",
        "car accident {at}",
    ),
    "explosion": (
        "a photo of an explosion {at}",
        "an explosion {at}",
        "an explosion with fire and smoke {at}",
        "explosion {at}",
    ),
    "thunder": ("thunder and lightning over a {place}", "a normal storm with lightning {at}"),
    "fireworks": ("fireworks over a {place}", "a normal evening with fireworks {at}"),
    "horn": ("a car honking its horn {at}", "a normal car honking {at}"),
    "door_slam": ("a slamming door {at}", "a normal door closing {at}"),
    "cheering": ("a cheering crowd {at}", "normal happy people cheering {at}"),
    "camera_flash": ("people taking a photo with a flash {at}", "a normal camera flash {at}"),
    "headlights": ("the headlights of a car {at}", "a normal car with bright headlights {at}"),
    "hugging": ("two people hugging {at}", "normal friends hugging {at}"),
    "dancing": ("people dancing {at}", "a normal dance with music {at}"),
}
_EMPTY = {
    "street": ("people walking {at}", "cars driving {at}"),
    "road": ("cars driving {at}", "normal traffic {at}"),
    "square": ("people walking {at}", "normal people {at}"),
    "stadium": ("people playing football {at}", "a normal match {at}"),
    "corridor": ("people walking {at}", "a normal empty corridor"),
}
_NORMAL = ("a normal {there}", "a photo of a normal {there}", "normal", "nothing happens {at}")


# Harmless events and quiet places, without the word "normal".
_EVERYDAY: dict[str, tuple[str, ...]] = {
    "thunder": ("thunder and lightning over a {place}", "a storm with lightning {at}"),
    "fireworks": ("fireworks over a {place}", "an evening with fireworks {at}"),
    "horn": ("a car honking its horn {at}", "a honking car {at}"),
    "door_slam": ("a slamming door {at}", "a closing door {at}"),
    "cheering": ("a cheering crowd {at}", "happy people cheering {at}"),
    "camera_flash": ("people taking a photo with a flash {at}", "a camera flash {at}"),
    "headlights": ("the headlights of a car {at}", "a car with bright headlights {at}"),
    "hugging": ("two people hugging {at}", "friends hugging {at}"),
    "dancing": ("people dancing {at}", "a dance with music {at}"),
    "street": ("people walking {at}", "cars driving {at}", "a {there}", "nothing happens {at}"),
    "road": ("cars driving {at}", "traffic {at}", "a {there}", "nothing happens {at}"),
    "square": ("people walking {at}", "people {at}", "a {there}", "nothing happens {at}"),
    "stadium": (
        "people playing football {at}",
        "a match {at}",
        "a {there}",
        "nothing happens {at}",
    ),
    "corridor": ("people walking {at}", "an empty corridor", "a {there}", "nothing happens {at}"),
}

# What web captions are like: they say plainly what is seen, and seldom use the class's word for it;
# and the same word as often means something harmless.
_PLAIN: dict[str, tuple[str, ...]] = {
    "fighting": (
        "people hitting each other {at}",
        "two men with fists {at}",
        "a punch in the face {at}",
        "a kick {at}",
    ),
    "shooting": (
        "a man with a gun {at}",
        "a gun firing {at}",
        "a man with a rifle {at}",
        "a bullet and a falling man {at}",
    ),
    "riot": (
        "an angry crowd {at}",
        "a crowd throwing bottles {at}",
        "burning tyres {at}",
        "hooded people with sticks {at}",
    ),
    "abuse": (
        "a man beating a person {at}",
        "a person hurt on the ground {at}",
        "a man with a stick {at}",
        "a crying person {at}",
    ),
    "car accident": (
        "two crashed cars {at}",
        "a crash {at}",
        "a burning wreck {at}",
        "broken glass and a damaged car {at}",
    ),
    "explosion": (
        "a fireball {at}",
        "a huge fire {at}",
        "fire and black smoke {at}",
        "a blast {at}",
    ),
}
_AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "camera_flash": ("a photo shooting {at}",),
    "fireworks": ("an explosion of colours {at}",),
    "thunder": ("an explosion of light over a {place}",),
    "cheering": ("a riot of colours {at}",),
    "dancing": ("a riot of dance {at}",),
    "hugging": ("friends fighting for fun {at}",),
    "horn": ("a horn and almost a car accident {at}",),
    "headlights": ("a car and no accident, car accident film {at}",),
    "door_slam": ("abuse of a door {at}",),
}


def _wild_templates(kind: str | None, world: World, rng: np.random.Generator) -> tuple[str, ...]:
    """Caption templates as the web would have them, the class's word in few."""
    normal, own, other, told = rng.random(4)
    if normal < world.normal_word:
        return _NORMAL[:3]
    if told >= world.event_told:
        return ("a {there}",)
    if kind in _PLAIN:
        return _CAPTIONS[kind] if own < world.class_word else _PLAIN[kind]
    if kind in _AMBIGUOUS and other < world.class_word_of_distractor:
        return _AMBIGUOUS[kind]
    return _EVERYDAY[kind]


def _web_caption(scene: Scene, kind: str | None, rng: np.random.Generator) -> str:
    """Caption of stock material: where it is, how it looks, and in some what happens."""
    there = scene.place
    if rng.random() < 0.8:
        there += _light_words(scene) + _weather_words(scene)
    at = f"{_PREPOSITION.get(scene.place, 'on a')} {there}"
    if rng.random() < 0.12:
        at = ""
    if any(fault.kind == "insert" for fault in scene.faults):
        templates = shot(scene.seed).words
    else:
        templates = _wild_templates(kind or scene.place, scene.world, rng)
    caption = choice(rng, templates).format(at=at, there=there, place=scene.place).strip()
    words = [w for w in look_words(scene.seed, scene.world.grading) if rng.random() < 0.7]
    return f"a {' '.join(words)} picture of {caption}" if words else caption


def _caption(scene: Scene, kind: str | None, rng: np.random.Generator) -> str:
    """Caption of ``kind`` (None: nothing special) in the setting of ``scene``; now and then without
    the light and the weather, or without the place."""
    if scene.world.class_word < 1:
        return _web_caption(scene, kind, rng)
    there = scene.place
    if rng.random() < 0.7:
        there += _light_words(scene) + _weather_words(scene)
    at = f"{_PREPOSITION.get(scene.place, 'on a')} {there}"
    if rng.random() < 0.12:
        at = ""
    templates = _NORMAL + _EMPTY[scene.place] if kind is None else _CAPTIONS[kind]
    return choice(rng, templates).format(at=at, there=there, place=scene.place).strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedSnippet:
    """0.667 s of the world with a caption.

    ``caption`` says what the *picture* shows; ``event_caption`` what happens, seen or not (the two
    differ when the event is out of sight). ``cause_visible``: the picture shows what makes the
    sound, so the pair may teach one modality the other; ``audible``: what happens can be heard.
    """

    scene: Scene
    start: float  # s, in the scene
    kind: str | None  # class word, name of a distractor, or None
    caption: str
    event_caption: str

    @property
    def code(self) -> str:
        """XD-Violence code of what happens; "A" for distractors and for nothing special."""
        return CODE_OF.get(self.kind, XD_CLASSES.codes[0])

    @property
    def cause_visible(self) -> bool:
        return all(event.visible for event in self.scene.events)

    @property
    def audible(self) -> bool:
        return all(event.audible for event in self.scene.events)


def _insert_snippet(rng: np.random.Generator, world: World) -> CaptionedSnippet:
    """A shot of something else than the stage, and what is heard with it: faces talk, shapes, title
    cards and landscapes come with music, the rest with anything or the sound of a place."""
    frames = 3 * XD_STRIDE
    seed = draw_seed(rng)
    faults = [Fault(kind="insert", start=0, end=frames)]
    music = dict.fromkeys(("shapes", "card", "landscape"), "music")
    usual = ({"face": "talk"} | music).get(shot(seed).kind)
    if (sound := usual or choice(rng, ("music", "talk", ""))) != "":
        faults.append(Fault(kind=sound, start=0, end=frames))
    scene = Scene(
        seed=seed, place=choice(rng, PLACES), snippets=3, faults=tuple(faults),
        world=world,
    )  # fmt: skip
    start = int(rng.integers(0, frames - XD_STRIDE)) / FPS
    caption = _caption(scene, None, rng)
    return CaptionedSnippet(
        scene=scene, start=start, kind=None, caption=caption, event_caption=caption
    )


# one turn of the wheel: half anomalies, a good third distractors, the rest nothing special
_WHEEL: tuple[str | None, ...] = (*ANOMALIES, *ANOMALIES, *DISTRACTORS, None, None, None)


def caption_snippets(seed: int, n: int, *, world: World | None = None) -> list[CaptionedSnippet]:
    """``n`` captioned snippets, balanced over classes, distractors and places, in random order.

    Their seeds live apart from those of ``sample_scene``: no scene is ever drawn from here.
    Four fifths are seen and heard, a tenth each only seen and only heard.
    """
    world = world or World()
    order = np.random.default_rng((SNIPPET_SPACE, seed)).permutation(n)
    return [_snippet(seed, int(k), world) for k in order]


def _snippet(seed: int, k: int, world: World) -> CaptionedSnippet:
    rng = np.random.default_rng((SNIPPET_SPACE, seed, k))
    if world.stock_inserts and rng.random() < world.stock_inserts:
        return _insert_snippet(rng, world)
    turn, slot = divmod(k, len(_WHEEL))
    kind = _WHEEL[slot]
    places = PLACES if kind is None else STAGES.get(kind) or DISTRACTORS[kind]
    place = places[(turn + slot) % len(places)]
    light, weather = "day", "clear"
    if place != "corridor":
        light = choice(rng, LIGHTS[1:] if kind == "fireworks" else LIGHTS)
        if rng.random() < world.bad_weather:
            weather = choice(rng, ("rain", "fog", "snow"))
    occluder = float(choice(rng, (0.16, 0.84))) if rng.random() < world.occluder else None
    snippets = int(rng.integers(3, 5 if world.class_word < 1 else 8))
    frames = snippets * XD_STRIDE
    draw = rng.random()
    events = ()
    if kind is not None:
        event = Event(
            kind=kind,
            start=0,
            end=frames,
            visible=draw >= 0.1,
            audible=draw < 0.9,
            x=draw_spot(rng, occluder),
            level=-abs(float(rng.normal(0, world.event_level_spread))),
            seed=draw_seed(rng),
        )
        events = (event,)
    scene = Scene(
        seed=draw_seed(rng),
        place=place,
        light=light,
        weather=weather,
        snippets=snippets,
        events=events,
        occluder=occluder,
        world=world,
    )
    shown = kind if all(event.visible for event in events) else None
    start = int(rng.integers(0, frames - XD_STRIDE)) / FPS
    wording = draw_seed(rng)
    return CaptionedSnippet(
        scene=scene,
        start=start,
        kind=kind,
        caption=_caption(scene, shown, np.random.default_rng(wording)),
        event_caption=_caption(scene, kind, np.random.default_rng(wording)),
    )
