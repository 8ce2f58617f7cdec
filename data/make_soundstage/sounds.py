"""The sound of Soundstage: ambience, anomalies and distractors, synthesised from scratch.

Everything is numpy: shaped noise (drawn in the frequency domain, hence seamlessly periodic),
decaying bursts, sweeps, and voices read from one-cycle vowel tables. ``mix`` puts a whole scene
together; ``render.wave`` slices what it returns. 16 kHz, mono, float32.

Soundstage is synthetic: nothing in it was ever recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from avadclip_lite.config import SAMPLE_RATE
from data.make_soundstage.inserts import style
from data.make_soundstage.places import car_passes
from data.make_soundstage.world import Event, Scene

LOOP = 1 << 17  # longest noise that is drawn; longer ambience repeats it, seam-free (8.2 s)
FADE = 0.04  # s; every event is faded out inside its own interval

Rng = np.random.Generator
Bands = tuple[tuple[float, float, float], ...]  # (centre Hz, width in octaves, gain)


# --- building blocks ------------------------------------------------------------------------


def _count(seconds: float) -> int:
    return max(8, round(seconds * SAMPLE_RATE))


@lru_cache(maxsize=256)
def _shape(size: int, bands: Bands) -> np.ndarray:
    """Amplitude spectrum of a sum of log-normal bumps, (size // 2 + 1,), unit power."""
    log_f = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0))
    shape = sum(
        gain * np.exp(-0.5 * ((log_f - np.log2(centre)) / width) ** 2)
        for centre, width, gain in bands
    )
    shape[0] = 0.0
    return (shape / np.sqrt(np.mean(shape**2))).astype(np.float32)


def _noise(rng: Rng, samples: int, *bands: tuple[float, float, float]) -> np.ndarray:
    """Unit-RMS noise of ``samples`` with the given spectrum; at most LOOP of it is new."""
    size = min(LOOP, max(256, 1 << (samples - 1).bit_length()))
    shape = _shape(size, bands)
    parts = rng.standard_normal((2, len(shape)), dtype=np.float32)
    loop = np.fft.irfft((parts[0] + 1j * parts[1]) * shape, size).astype(np.float32)
    loop *= np.float32(np.sqrt(size / 2))
    return loop[:samples] if samples <= size else np.resize(loop, samples)


def _decay(samples: int, tau: float, attack: float = 0.0015) -> np.ndarray:
    """Envelope that rises in ``attack`` s and falls with time constant ``tau`` s."""
    t = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    return np.minimum(1.0, t / attack) * np.exp(-t / tau)


def _arch(samples: int, rise: float = 0.03, fall: float = 0.08) -> np.ndarray:
    """Flat envelope with soft edges of ``rise`` and ``fall`` seconds."""
    t = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    left = np.clip(t / rise, 0, 1)
    right = np.clip((samples / SAMPLE_RATE - t) / fall, 0, 1)
    return np.sqrt(left * right)


def _wander(rng: Rng, samples: int, rate: float, low: float, high: float) -> np.ndarray:
    """Slow random curve between ``low`` and ``high``, about ``rate`` turns a second."""
    knots = max(2, int(samples / SAMPLE_RATE * rate) + 2)
    places = np.linspace(0, samples, knots)
    curve = np.interp(np.arange(0, samples, 32), places, rng.uniform(low, high, knots))
    return np.repeat(curve.astype(np.float32), 32)[:samples]


def _tone(frequency: np.ndarray | float, samples: int, phase: float = 0.0) -> np.ndarray:
    """Sine of constant or moving frequency (Hz)."""
    steps = np.broadcast_to(np.asarray(frequency, dtype=np.float64), (samples,))
    return np.sin(2 * np.pi * (np.cumsum(steps) / SAMPLE_RATE + phase)).astype(np.float32)


def _sweep(start: float, end: float, samples: int) -> np.ndarray:
    return _tone(np.geomspace(start, end, samples), samples)


_VOWELS = {  # formant centres (Hz) and gains
    "ah": ((780.0, 1.0), (1250.0, 0.7), (2700.0, 0.25)),
    "oh": ((480.0, 1.0), (850.0, 0.6), (2500.0, 0.1)),
    "ee": ((330.0, 0.6), (2250.0, 0.8), (3000.0, 0.5)),
    "scream": ((1050.0, 0.9), (1750.0, 1.0), (3300.0, 0.8)),
    "brass": ((420.0, 1.0), (1300.0, 0.6), (2600.0, 0.3)),
}


@lru_cache(maxsize=128)
def _cycle(vowel: str, pitch: int) -> np.ndarray:
    """One cycle (1024 values) of a voice at ``pitch`` Hz, unit RMS."""
    harmonics = np.arange(1, max(2, int(7000 / pitch)) + 1)
    f = harmonics * pitch
    weight = sum(g * np.exp(-0.5 * (np.log2(f / c) / 0.28) ** 2) for c, g in _VOWELS[vowel])
    weight = weight + 0.05 / harmonics
    # fixed scattered phases: a peaky cycle would click
    angle = 2 * np.pi * np.arange(1024) / 1024
    table = (np.sin(np.outer(angle, harmonics) + 1.7 * harmonics**2) * weight).sum(1)
    return (table / np.sqrt(np.mean(table**2))).astype(np.float32)


def _sing(vowel: str, pitch: np.ndarray) -> np.ndarray:
    """Vowel along a pitch curve (Hz per sample)."""
    table = _cycle(vowel, int(round(float(np.median(pitch)) / 20) * 20) or 20)
    phase = np.cumsum(pitch, dtype=np.float64) / SAMPLE_RATE
    return table[(phase * 1024).astype(np.int64) & 1023]


def _voice(
    rng: Rng,
    seconds: float,
    start: float,
    end: float,
    vowel: str = "ah",
    breath: float = 0.15,
    rough: float = 0.02,
) -> np.ndarray:
    """A voice gliding from ``start`` to ``end`` Hz, with vibrato, roughness and breath."""
    n = _count(seconds)
    t = np.arange(n, dtype=np.float32) / SAMPLE_RATE
    glide = np.geomspace(start, end, n)
    vibrato = 1 + 0.02 * np.sin(2 * np.pi * rng.uniform(5, 7) * t + rng.uniform(0, 6))
    jitter = 1 + _wander(rng, n, 60, -rough, rough)
    wave = _sing(vowel, glide * vibrato * jitter)
    wave = wave + breath * _noise(rng, n, (2500, 0.9, 1.0))
    return (wave * _arch(n, 0.04, min(0.15, seconds / 2))).astype(np.float32)


def _put(track: np.ndarray, at: float, wave: np.ndarray, gain: float = 1.0) -> None:
    """Add ``wave`` to ``track`` at ``at`` seconds; what hangs over either end is cut."""
    start = round(at * SAMPLE_RATE)
    if start < 0:
        wave, start = wave[-start:], 0
    wave = wave[: max(0, len(track) - start)]
    track[start : start + len(wave)] += np.float32(gain) * wave


def _times(rng: Rng, seconds: float, low: float, high: float, first: float = 0.0) -> list[float]:
    """Moments with gaps between ``low`` and ``high`` seconds."""
    times, t = [], first + float(rng.uniform(0, low))
    while t < seconds:
        times.append(t)
        t += float(rng.uniform(low, high))
    return times


# --- single noises --------------------------------------------------------------------------


def _crack(rng: Rng) -> np.ndarray:
    """A gunshot: a click that fills the spectrum, a thump, a short echo from the walls."""
    n = _count(0.5)
    wave = 1.3 * _noise(rng, n, (2200, 1.6, 1.0)) * _decay(n, 0.016, 0.0004)
    wave += 0.8 * _sweep(190, 60, n) * _decay(n, 0.05)
    echo = 0.16 * _noise(rng, n, (900, 1.3, 1.0)) * _decay(n, 0.13, 0.02)
    _put(wave, 0.03, echo)
    return wave.astype(np.float32)


def _boom(rng: Rng, seconds: float) -> np.ndarray:
    """A blast: a hard front, a deep roar that dies over a second or two."""
    n = _count(seconds)
    wave = 1.5 * _noise(rng, n, (900, 1.5, 1.0)) * _decay(n, 0.07, 0.002)
    wave += 1.1 * _noise(rng, n, (70, 1.0, 1.0)) * _decay(n, 0.75, 0.004)
    wave += 0.5 * _noise(rng, n, (320, 1.2, 1.0)) * _decay(n, 0.4, 0.01)
    wave += 1.0 * _sweep(75, 28, n) * _decay(n, 0.5)
    return wave.astype(np.float32)


def _thud(rng: Rng, bright: float = 0.35) -> np.ndarray:
    """A blow on a body: dull, with a slap on top."""
    n = _count(0.22)
    wave = _sweep(150, 70, n) * _decay(n, 0.045)
    wave += 0.8 * _noise(rng, n, (260, 0.8, 1.0)) * _decay(n, 0.03)
    wave += bright * _noise(rng, n, (2400, 0.8, 1.0)) * _decay(n, 0.012)
    return wave.astype(np.float32)


def _modes(rng: Rng, seconds: float, low: float, high: float, count: int, tau: float) -> np.ndarray:
    """Struck metal or glass: inharmonic decaying sines between ``low`` and ``high`` Hz."""
    n = _count(seconds)
    wave = np.zeros(n, dtype=np.float32)
    for frequency in rng.uniform(low, high, count):
        share = tau * rng.uniform(0.4, 1.3)
        wave += rng.uniform(0.3, 1.0) * _tone(frequency, n, rng.random()) * _decay(n, share)
    return wave / np.float32(np.sqrt(count))


def _glass(rng: Rng) -> np.ndarray:
    """Glass that breaks: a bright hiss and a shower of tinkles."""
    n = _count(0.7)
    wave = 0.6 * _noise(rng, n, (5000, 0.5, 1.0)) * _decay(n, 0.05)
    for at in rng.uniform(0.0, 0.4, 9):
        _put(wave, float(at), _modes(rng, 0.15, 3200, 7200, 2, 0.03), float(rng.uniform(0.3, 0.8)))
    return wave


def _crackle(rng: Rng, seconds: float, rate: float) -> np.ndarray:
    """Fire: sparse snaps over a soft roar."""
    n = _count(seconds)
    clicks = np.zeros(n, dtype=np.float32)
    count = rng.poisson(rate * seconds)
    clicks[rng.integers(0, n, count)] = rng.exponential(1.0, count)
    snap = _noise(rng, 256, (3000, 1.0, 1.0)) * _decay(256, 0.003)
    wave = np.convolve(clicks, snap)[:n].astype(np.float32)
    roar = _noise(rng, n, (170, 1.1, 1.0)) * _wander(rng, n, 9, 0.4, 1.0)
    return 0.6 * wave + 0.5 * roar


def _crowd(rng: Rng, seconds: float, low: float, bright: float) -> np.ndarray:
    """Many voices at once: noise in the shape of vowels, stirred."""
    n = _count(seconds)
    wave = _noise(
        rng, n, (low, 0.55, 1.0), (2.1 * low, 0.4, 0.6 * bright), (2600, 0.5, 0.3 * bright)
    )
    return wave * _wander(rng, n, 5, 0.55, 1.25)


def _chirp(rng: Rng) -> np.ndarray:
    """A bird: two to five quick notes."""
    base = rng.uniform(2600, 4200)
    wave = np.zeros(_count(0.6), dtype=np.float32)
    for k in range(int(rng.integers(2, 6))):
        n = _count(0.06)
        note = _sweep(base * rng.uniform(0.9, 1.3), base * rng.uniform(0.9, 1.3), n)
        _put(wave, 0.1 * k, note * _arch(n, 0.015, 0.03))
    return wave


def _note(pitch: float, seconds: float, vowel: str = "brass", tau: float = 0.35) -> np.ndarray:
    n = _count(seconds)
    return _sing(vowel, np.full(n, pitch)) * _decay(n, tau, 0.01)


_SCALE = 220.0 * 2.0 ** (np.array([0, 3, 5, 7, 10, 12, 15, 17]) / 12)


def _music(rng: Rng, seconds: float, beats: tuple[float, ...], drums: float) -> np.ndarray:
    """A dance tune: bass drum on the beat, hi-hat off it, a pentatonic melody."""
    wave = np.zeros(_count(seconds), dtype=np.float32)
    hat_n = _count(0.06)
    for k, at in enumerate(beats):
        kick = _sweep(130, 45, _count(0.2)) * _decay(_count(0.2), 0.07)
        _put(wave, at, kick, 1.1 * drums)
        hat = _noise(rng, hat_n, (6000, 0.4, 1.0)) * _decay(hat_n, 0.015)
        _put(wave, at + 0.25, hat, 0.35 * drums)
        root = _SCALE[(0, 3, 4, 2)[(k // 4) % 4]]
        _put(wave, at, _note(root / 2, 0.5, "oh"), 0.35)
        for half in (0.0, 0.25):
            _put(wave, at + half, _note(float(rng.choice(_SCALE)) * 2, 0.35, "brass", 0.16), 0.3)
    return wave


# --- events: (rng, seconds, beats) -> wave, peak around 1 -------------------------------------

Beats = tuple[float, ...]


def _shooting(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    for at in beats:
        _put(wave, at, _crack(rng), float(rng.uniform(0.8, 1.1)))
    for at in _times(rng, seconds, 1.2, 3.0, 0.6):
        _put(wave, at, _voice(rng, rng.uniform(0.4, 0.8), 620, 760, "scream"), 0.12)
    return wave


def _explosion(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = 0.30 * _crackle(rng, seconds, 22)
    first = _count(beats[0])
    wave[:first] = 0
    wave[first:] *= np.minimum(1, np.arange(len(wave) - first, dtype=np.float32) / SAMPLE_RATE)
    for at in beats:
        _put(wave, at, _boom(rng, min(3.0, seconds)), float(rng.uniform(0.85, 1.1)))
        for late in rng.uniform(0.4, 1.6, 8):  # debris comes down
            _put(wave, at + float(late), _thud(rng, 0.8), float(rng.uniform(0.05, 0.2)))
    return wave


def _car_accident(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    skid = beats[0]
    n = _count(skid)
    pitch = _wander(rng, n, 14, 950, 1250) * np.linspace(1.1, 0.9, n)
    squeal = 0.6 * _tone(pitch, n) + 0.35 * _tone(2.02 * pitch, n, 0.3)
    squeal += 0.4 * _noise(rng, n, (1500, 0.6, 1.0))
    _put(wave, 0.0, squeal * _arch(n, 0.12, 0.03), 0.55)
    for at in beats:
        n = _count(0.6)
        slam = 1.3 * _noise(rng, n, (700, 1.6, 1.0)) * _decay(n, 0.07)
        slam += 0.9 * _sweep(140, 50, n) * _decay(n, 0.1)
        _put(wave, at, slam)
        _put(wave, at, _modes(rng, 0.9, 250, 2600, 12, 0.12), 0.9)
        _put(wave, at + 0.05, _glass(rng), 0.6)
        for late in rng.uniform(0.3, 1.1, 5):
            _put(wave, at + float(late), _modes(rng, 0.3, 700, 4000, 5, 0.05), 0.22)
    rest = seconds - skid
    n = _count(rest)
    # what remains: the stuck horn of the wreck, and steam
    horn = _sing("brass", np.full(n, 392.0)) + _sing("brass", np.full(n, 494.0))
    horn = horn * _arch(n, 0.4, 0.3) * _wander(rng, n, 3, 0.5, 1.0)
    _put(wave, skid, 0.10 * horn + 0.10 * _noise(rng, n, (4200, 0.6, 1.0)) * _arch(n, 0.3, 0.3))
    return wave


def _fighting(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = 0.05 * _crowd(rng, seconds, 500, 0.4)
    for at in beats:
        _put(wave, at, _thud(rng), float(rng.uniform(0.6, 1.0)))
        if rng.random() < 0.5:
            grunt = _voice(rng, 0.2, rng.uniform(150, 210), 110, "oh", 0.4, 0.05)
            _put(wave, at + 0.04, grunt, 0.28)
    for at in _times(rng, seconds, 0.5, 1.1):
        pitch = rng.uniform(190, 340)
        shout = _voice(rng, rng.uniform(0.25, 0.5), pitch, pitch * 1.15, "ah", 0.3, 0.05)
        _put(wave, at, shout, float(rng.uniform(0.2, 0.32)))
    return wave


def _riot(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = 0.32 * _crowd(rng, seconds, 560, 0.8)
    for at in _times(rng, seconds, 0.12, 0.35):
        pitch = rng.uniform(170, 420)
        shout = _voice(rng, rng.uniform(0.25, 0.6), pitch, pitch * rng.uniform(0.9, 1.3), "ah", 0.3)
        _put(wave, at, shout, float(rng.uniform(0.08, 0.22)))
    for k, at in enumerate(beats):  # things land
        _put(wave, at, _glass(rng) if k % 3 == 0 else _thud(rng, 0.6), 0.5)
    n = _count(seconds)
    siren = 850 + 350 * np.sin(2 * np.pi * 0.35 * np.arange(n) / SAMPLE_RATE)
    return wave + 0.05 * _tone(siren, n)


def _abuse(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    for at in beats:
        n = _count(0.12)
        slap = _noise(rng, n, (1900, 0.8, 1.0)) * _decay(n, 0.018)
        _put(wave, at, slap + 0.5 * _thud(rng)[:n], float(rng.uniform(0.5, 0.8)))
        top = rng.uniform(780, 1050)
        scream = _voice(rng, rng.uniform(0.35, 0.6), top, top * 0.72, "scream", 0.2, 0.03)
        _put(wave, at + 0.08, scream, float(rng.uniform(0.35, 0.5)))
    for at in _times(rng, seconds, 0.9, 1.6):  # sobbing
        for k in range(3):
            _put(wave, at + 0.16 * k, _voice(rng, 0.12, 520, 430, "ah", 0.6), 0.10)
    return wave


def _thunder(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    for at in beats:
        n = _count(2.6)
        roll = _noise(rng, n, (85, 1.0, 1.0)) * _wander(rng, n, 11, 0.1, 1.3) * _decay(n, 1.1, 0.18)
        tear = _noise(rng, n, (650, 1.2, 1.0)) * _wander(rng, n, 30, 0, 1) * _decay(n, 0.25, 0.05)
        _put(wave, at + 0.1, 0.60 * roll + 0.40 * tear)
    return wave


def _fireworks(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    for at in beats:
        n = _count(0.4)
        rise = _sweep(900, rng.uniform(2400, 3200), n) * _arch(n, 0.1, 0.05)
        _put(wave, at - 0.4, rise, 0.16)
        n = _count(0.7)
        pop = 1.1 * _noise(rng, n, (480, 1.2, 1.0)) * _decay(n, 0.035)
        pop += 0.30 * _noise(rng, n, (380, 1.0, 1.0)) * _decay(n, 0.25, 0.03)
        _put(wave, at, pop, 0.8)
        for late in rng.uniform(0.15, 0.65, 26):  # the glitter
            spark = _noise(rng, 256, (5200, 0.4, 1.0)) * _decay(256, 0.002)
            _put(wave, at + float(late), spark, 0.22)
    return wave


def _horn(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    low = rng.uniform(340, 430)
    for at in beats:
        n = _count(rng.uniform(0.35, 0.65))
        blow = _sing("brass", np.full(n, low)) + _sing("brass", np.full(n, 1.26 * low))
        _put(wave, at, blow * _arch(n, 0.02, 0.04), 0.26)
    return wave


def _door_slam(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    creak_n = _count(0.35)
    for at in beats:
        creak = _wander(rng, creak_n, 25, 380, 620)
        _put(wave, at - 0.45, _sing("oh", creak) * _arch(creak_n, 0.1, 0.1), 0.08)
        n = _count(0.5)
        slam = 1.1 * _noise(rng, n, (220, 1.0, 1.0)) * _decay(n, 0.035)
        slam += 0.9 * _modes(rng, 0.5, 90, 420, 6, 0.06)
        slam += 0.12 * _noise(rng, n, (500, 1.2, 1.0)) * _decay(n, 0.18, 0.02)
        _put(wave, at, slam, 0.9)
        _put(wave, at + 0.03, _modes(rng, 0.1, 2200, 3600, 3, 0.012), 0.3)
    return wave


def _cheering(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = 0.28 * _crowd(rng, seconds, 760, 1.1)
    n = _count(seconds)
    claps = _noise(rng, n, (1500, 0.7, 1.0)) * _wander(rng, n, 45, -0.6, 1.0).clip(0)
    wave += 0.30 * claps
    for at in beats:
        pitch = rng.uniform(360, 560)
        _put(wave, at, _voice(rng, 0.6, pitch, pitch * 1.5, "ee", 0.2), 0.16)
    for at in _times(rng, seconds, 0.9, 2.0):
        n = _count(0.4)
        whistle = _tone(_wander(rng, n, 6, 2300, 2700), n) * _arch(n)
        _put(wave, at, whistle, 0.14)
    return wave


def _camera_flash(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = 0.10 * _crowd(rng, seconds, 420, 0.3)
    for at in beats:
        for late in (0.0, 0.07):
            click = _noise(rng, 512, (3600, 0.7, 1.0)) * _decay(512, 0.005)
            _put(wave, at + late, click, 0.4)
        whine = _sweep(3000, 6800, _count(0.25)) * _arch(_count(0.25))
        _put(wave, at + 0.1, whine, 0.03)
    return wave


def _headlights(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    n = _count(seconds)
    t = np.linspace(0, 1, n)
    revs = 55 + 60 * np.sin(np.pi * t) ** 2
    engine = _sing("oh", revs * (1 + _wander(rng, n, 20, -0.03, 0.03)))
    tyres = _noise(rng, n, (500, 0.9, 1.0))
    return ((0.17 * engine + 0.14 * tyres) * (0.35 + np.sin(np.pi * t) ** 2)).astype(np.float32)


def _hugging(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    wave = np.zeros(_count(seconds), dtype=np.float32)
    for at in beats:  # laughter, and pats on the back
        pitch = rng.uniform(210, 330)
        for k in range(int(rng.integers(3, 6))):
            ha = _voice(rng, 0.11, pitch * 1.1, pitch * (0.95 - 0.03 * k), "ah", 0.5)
            _put(wave, at + 0.17 * k, ha, 0.2)
        _put(wave, at + 0.3, _thud(rng, 0.1), 0.12)
    return wave


def _dancing(rng: Rng, seconds: float, beats: Beats) -> np.ndarray:
    return 0.5 * _music(rng, seconds, beats, 1.0)


SOUNDS: dict[str, Callable[[Rng, float, Beats], np.ndarray]] = {
    "shooting": _shooting,
    "explosion": _explosion,
    "car accident": _car_accident,
    "fighting": _fighting,
    "riot": _riot,
    "abuse": _abuse,
    "thunder": _thunder,
    "fireworks": _fireworks,
    "horn": _horn,
    "door_slam": _door_slam,
    "cheering": _cheering,
    "camera_flash": _camera_flash,
    "headlights": _headlights,
    "hugging": _hugging,
    "dancing": _dancing,
}


# --- ambience -------------------------------------------------------------------------------


def _footsteps(rng: Rng, track: np.ndarray, seconds: float, gain: float) -> None:
    pace = rng.uniform(0.5, 0.62)
    at = float(rng.uniform(0, 1))
    step = _noise(rng, 1200, (900, 0.9, 1.0)) * _decay(1200, 0.012)
    while at < seconds:
        _put(track, at, step, gain * float(rng.uniform(0.5, 1.0)))
        at += pace


def _ambience(scene: Scene, rng: Rng, n: int) -> np.ndarray:
    """The bed of sound of a place, its weather and its time of day, RMS about 0.05."""
    seconds = n / SAMPLE_RATE
    place, outside = scene.place, scene.place != "corridor"
    bed = np.zeros(n, dtype=np.float32)
    if place in ("street", "road"):
        bed += 0.022 * _noise(rng, n, (140, 1.0, 1.0)) * _wander(rng, n, 0.5, 0.6, 1.2)
        tyres = _noise(rng, n, (700, 1.0, 1.0))
        t = np.arange(0, n, 32, dtype=np.float32) / SAMPLE_RATE
        passing = np.zeros(len(t), dtype=np.float32)
        for at, speed in car_passes(scene):
            passing += np.exp(-0.5 * ((t - at) * speed / 0.30) ** 2)
        bed += (0.10 if place == "road" else 0.06) * tyres * np.repeat(passing, 32)[:n]
    if place == "corridor":
        bed += 0.012 * _tone(100.0, n) + 0.006 * _tone(200.0, n)
        bed += 0.014 * _noise(rng, n, (300, 1.0, 1.0))
        _footsteps(rng, bed, seconds, 0.05)
    if place == "square":
        bed += 0.028 * _crowd(rng, seconds, 430, 0.35)[:n]
        bed += 0.010 * _noise(rng, n, (3500, 0.7, 1.0))  # the fountain
        if rng.random() < 0.4:  # an accordion somewhere
            for at in _times(rng, seconds, 0.3, 0.6):
                _put(bed, at, _note(float(rng.choice(_SCALE)) * 2, 0.5), 0.02)
    if place == "stadium":
        bed += 0.05 * _crowd(rng, seconds, 520, 0.5)[:n] * _wander(rng, n, 0.4, 0.6, 1.3)
        for at in _times(rng, seconds, 6, 14, 2):
            m = _count(0.3)
            _put(bed, at, _tone(2650 + 60 * _tone(40.0, m), m) * _arch(m), 0.05)
    if place == "street":
        _footsteps(rng, bed, seconds, 0.03)
    if outside and scene.light == "day" and scene.weather in ("clear", "fog"):
        for at in _times(rng, seconds, 1.5, 6.0):
            _put(bed, at, _chirp(rng), float(rng.uniform(0.01, 0.035)))
    if outside and scene.light == "night" and scene.weather == "clear":
        t = np.arange(n, dtype=np.float32) / SAMPLE_RATE
        gate = (np.sin(2 * np.pi * 2.3 * t) > 0.2) * (0.5 + 0.5 * np.sin(2 * np.pi * 31 * t))
        bed += 0.010 * _tone(4300.0, n) * gate.astype(np.float32)
    if scene.weather == "rain":
        bed += 0.045 * _noise(rng, n, (3800, 0.9, 1.0)) * _wander(rng, n, 0.7, 0.8, 1.2)
    if outside:
        gusts = {"snow": 0.035, "rain": 0.02, "fog": 0.006, "clear": 0.010}[scene.weather]
        bed += gusts * _noise(rng, n, (260, 0.7, 1.0)) * _wander(rng, n, 0.8, 0.2, 1.3)
    return bed


def _talk(rng: Rng, seconds: float, high: bool) -> np.ndarray:
    """A narrator: sentences of gliding vowels with pauses, about four syllables a second."""
    wave = np.zeros(_count(seconds), dtype=np.float32)
    pitch, t = rng.uniform(*((175, 250) if high else (90, 140))), float(rng.uniform(0, 0.4))
    while t < seconds:
        for _ in range(int(rng.integers(5, 14))):  # a sentence
            length = rng.uniform(0.12, 0.26)
            start, end = pitch * rng.uniform(0.85, 1.25, 2)
            vowel = ("ah", "oh", "ee")[int(rng.integers(3))]
            _put(wave, t, _voice(rng, length, start, end, vowel, 0.2), float(rng.uniform(0.5, 1.0)))
            t += length + rng.uniform(0.0, 0.08)
        t += rng.uniform(0.3, 1.2)
    return wave


def _score(rng: Rng, seconds: float, high: bool) -> np.ndarray:
    """Film music: chords that swell and change, low or high, soft or brassy, with or without a
    drum."""
    wave = np.zeros(_count(seconds), dtype=np.float32)
    vowel = ("oh", "ah", "ee", "brass")[int(rng.integers(4))]
    register, bar = float(rng.choice((1.0, 2.0) if high else (0.25, 0.5))), rng.uniform(1.0, 2.6)
    drum = float(rng.uniform(0.4, 1.0)) * (rng.random() < 0.5)
    t = 0.0
    while t < seconds:
        root = int(rng.integers(4))
        for step in (0, 2, 4):
            pitch = np.full(_count(1.15 * bar), register * float(_SCALE[root + step % 4]))
            _put(wave, t, _sing(vowel, pitch) * _arch(len(pitch), 0.4 * bar, 0.4 * bar), 0.4)
        for beat in range(4 if drum else 0):
            kick = _sweep(90, 40, _count(0.3)) * _decay(_count(0.3), 0.12)
            _put(wave, t + beat * bar / 4, kick, drum)
        t += bar
    return wave


def _soundtrack(kind: str, seed: int, seconds: float) -> np.ndarray:
    """Music or a voice of ``seconds``, laid over what happens: that of the shot ``seed``."""
    rng = np.random.default_rng((seed, 0x3051C))
    if kind == "talk":
        wave = 0.16 * _talk(rng, seconds, style(seed, 2) == 1)
    elif (which := style(seed, 3)) == 0:
        beats = tuple(np.arange(0.0, seconds, rng.uniform(0.4, 0.75)))
        wave = 0.3 * _music(rng, seconds, beats, float(rng.uniform(0.3, 1.0)))
    else:
        wave = 0.16 * _score(rng, seconds, which == 1)
    return wave * _arch(len(wave), 0.3, 0.3)


def _equalise(track: np.ndarray, seed: int, spread: float) -> np.ndarray:
    """A video's own sound: a gain drawn for each of six bands, smooth in between."""
    gains = np.random.default_rng((seed, 0xE9)).normal(0, spread, 6)
    spectrum = np.fft.rfft(track)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(track), 1 / SAMPLE_RATE), 20.0) / 60.0)
    spectrum *= 10 ** (np.interp(octave, np.linspace(0, 7, 6), gains) / 20)
    return np.fft.irfft(spectrum, len(track)).astype(np.float32)


def _gain(decibel: float) -> float:
    return 10.0 ** (decibel / 20.0)


def _event(event: Event, fps: float) -> np.ndarray:
    """The whole sound of one event, faded out before its last frame."""
    seconds = (event.end - event.start) / fps
    rng = np.random.default_rng((event.seed, 0x50))
    wave = SOUNDS[event.kind](rng, seconds, event.beats)
    edge = min(len(wave), _count(FADE))
    wave[-edge:] *= np.linspace(1, 0, edge, dtype=np.float32)
    return wave


def mix(scene: Scene) -> np.ndarray:
    """The full waveform of ``scene``, (samples,) float32 at 16 kHz.

    Softly limited below 1; only a clipped microphone reaches 1. The order is that of the world:
    place and events are summed in the air, then the microphone adds its own failures.
    """
    world, fps = scene.world, scene.fps
    n = round(scene.duration * SAMPLE_RATE)
    rng = np.random.default_rng((scene.seed, 0xA3B1E))
    track = _ambience(scene, rng, n) * np.float32(_gain(world.ambience_level))
    for start, end in scene.swells:  # the place itself gets loud
        a, b = (round(frame / fps * SAMPLE_RATE) for frame in (start, end))
        a, b = max(0, a), min(n, b)
        m = b - a
        burst = track[a:b] * np.float32(5.0)
        burst += np.float32(0.13) * _noise(rng, m, (420, 1.4, 1.0)) * _wander(rng, m, 2, 0.7, 1.2)
        ramp = np.clip(np.minimum(np.arange(m), np.arange(m)[::-1]) / (0.3 * SAMPLE_RATE), 0, 1)
        track[a:b] += burst * ramp.astype(np.float32)
    for event in scene.events:
        if not event.audible and event.unheard != "loud":
            continue
        level = world.event_level if event.code else world.distractor_level
        if not event.audible:
            level -= world.masking
        elif not event.visible and event.unseen == "off_camera":
            level -= 2.0  # it is a little farther away
        gain = np.float32(0.85 * _gain(level + event.level))
        _put(track, event.start / fps, _event(event, fps), gain)
    for fault in scene.faults:
        if fault.kind not in ("music", "talk"):
            continue
        a, b = (max(0, round(frame / fps * SAMPLE_RATE)) for frame in (fault.start, fault.end))
        over = _soundtrack(fault.kind, scene.seed + fault.start, (fault.end - fault.start) / fps)
        track[a:b] *= np.float32(_gain(-world.ducking))
        _put(track, fault.start / fps, over, _gain(world.soundtrack_level))
    if world.equaliser:
        track = _equalise(track, scene.seed, world.equaliser)
    track += np.float32(0.0012) * _noise(rng, n, (2500, 2.0, 1.0))  # the microphone's own hiss
    # soft limit: linear to 0.5, then bending towards 0.97
    size = np.abs(track)
    over = size > 0.5
    track[over] = np.sign(track[over]) * (0.5 + 0.47 * np.tanh((size[over] - 0.5) / 0.47))
    for fault in scene.faults:
        a, b = (max(0, round(frame / fps * SAMPLE_RATE)) for frame in (fault.start, fault.end))
        if fault.kind == "clipped_microphone":
            track[a:b] = np.clip(track[a:b] * np.float32(14.0), -1.0, 1.0)
        elif fault.kind == "silent_microphone":
            track[a:b] *= np.float32(0.0)
        elif fault.kind == "sound_static":
            hiss = _noise(rng, b - a, (3000, 1.6, 1.0))
            track[a:b] = np.float32(0.06) * track[a:b] + np.float32(0.12) * hiss
    return track
