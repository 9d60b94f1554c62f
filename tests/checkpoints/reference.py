"""Independent answers: the published networks written a second time, on their own state dicts.

Nothing here uses diffusers or pristina. ``make_*`` draws random weights for a given architecture,
``*_forward`` runs them; both walk over the architecture that is given, never over what the names
look like. Written after the papers and the names and forms of openai/guided-diffusion,
openai/consistency_models and pesser/pytorch_diffusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Form:
    """An architecture: widths fine to coarse, residual blocks a level, levels that attend."""

    widths: tuple[int, ...] = (32, 64)
    blocks: int = 1
    attends: tuple[int, ...] = (1,)
    inputs: int = 3
    outputs: int = 3
    residual: bool = True
    scale_shift: bool = True
    classes: int = 0
    time: int = 32
    two_d: bool = False


class Maker:
    """Random tensors by name, scaled so that signals keep their size."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)
        self.tensors = {}

    def layer(self, name, out, *fan_in):
        scale = 1 / math.sqrt(math.prod(fan_in))
        self.tensors[f"{name}.weight"] = scale * torch.randn(out, *fan_in, generator=self.random)
        self.tensors[f"{name}.bias"] = 0.1 * torch.randn(out, generator=self.random)

    def norm(self, name, width):
        self.tensors[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=self.random)
        self.tensors[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.random)


def swish(x):
    return x * torch.sigmoid(x)


def attention(q, k, v):
    """(B, heads, C, T) each, written out."""
    weight = torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(q.shape[2])
    return torch.einsum("bhts,bhcs->bhct", weight.softmax(-1), v)


# ---------------------------------------------------------------- guided diffusion


def adm_plan(form):
    """Every block in order: (name, kind, channels in, channels out)."""
    plan = [("input_blocks.0.0", "first", form.inputs, form.widths[0])]
    skips, width, n = [form.widths[0]], form.widths[0], 1
    for level, out in enumerate(form.widths):
        for _ in range(form.blocks):
            plan.append((f"input_blocks.{n}.0", "res", width, out))
            width = out
            if level in form.attends:
                plan.append((f"input_blocks.{n}.1", "attention", width, width))
            plan.append((None, "push", width, width))
            skips.append(width)
            n += 1
        if level < len(form.widths) - 1:
            plan.append((f"input_blocks.{n}.0", "down", width, width))
            plan.append((None, "push", width, width))
            skips.append(width)
            n += 1
    plan += [
        ("middle_block.0", "res", width, width),
        ("middle_block.1", "attention", width, width),
        ("middle_block.2", "res", width, width),
    ]
    n = 0
    for level in reversed(range(len(form.widths))):
        for j in range(form.blocks + 1):
            plan.append((None, "pop", 0, 0))
            plan.append((f"output_blocks.{n}.0", "res", width + skips.pop(), form.widths[level]))
            width, place = form.widths[level], 1
            if level in form.attends:
                plan.append((f"output_blocks.{n}.1", "attention", width, width))
                place = 2
            if level and j == form.blocks:
                plan.append((f"output_blocks.{n}.{place}", "up", width, width))
            n += 1
    return plan


def make_adm(form, seed=0):
    m, emb = Maker(seed), 4 * form.time
    m.layer("time_embed.0", emb, form.time)
    m.layer("time_embed.2", emb, emb)
    if form.classes:
        m.tensors["label_emb.weight"] = torch.randn(form.classes, emb, generator=m.random)
    for name, kind, n_in, n_out in adm_plan(form):
        if kind == "first":
            m.layer(name, n_out, n_in, 3, 3)
        elif kind == "attention":
            ones = (1, 1) if form.two_d else (1,)
            m.norm(f"{name}.norm", n_in)
            m.layer(f"{name}.qkv", 3 * n_in, n_in, *ones)
            m.layer(f"{name}.proj_out", n_in, n_in, *ones)
        elif kind == "res" or (kind in ("down", "up") and form.residual):
            m.norm(f"{name}.in_layers.0", n_in)
            m.layer(f"{name}.in_layers.2", n_out, n_in, 3, 3)
            m.layer(f"{name}.emb_layers.1", (2 if form.scale_shift else 1) * n_out, emb)
            m.norm(f"{name}.out_layers.0", n_out)
            m.layer(f"{name}.out_layers.3", n_out, n_out, 3, 3)
            if n_in != n_out:
                m.layer(f"{name}.skip_connection", n_out, n_in, 1, 1)
        elif kind in ("down", "up"):
            m.layer(f"{name}.{'op' if kind == 'down' else 'conv'}", n_out, n_in, 3, 3)
    m.norm("out.0", form.widths[0])
    m.layer("out.2", form.outputs, form.widths[0], 3, 3)
    return m.tensors


def adm_forward(w, form, x, t, *, heads, order, label=None):
    """Run ADM; ``heads(channels)`` gives a layer's heads, ``label`` a class vector or None."""
    frequencies = 10000.0 ** (-torch.arange(form.time // 2) / (form.time // 2))
    angle = t[:, None].float() * frequencies
    emb = torch.cat([angle.cos(), angle.sin()], 1)
    emb = F.linear(
        swish(F.linear(emb, w["time_embed.0.weight"], w["time_embed.0.bias"])),
        w["time_embed.2.weight"],
        w["time_embed.2.bias"],
    )
    emb = emb if label is None else emb + label

    def norm(h, name):
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)

    def conv(h, name, **how):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **how)

    def resample(h, kind):
        if kind == "down":
            return F.avg_pool2d(h, 2)
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3) if kind == "up" else h

    def res(h, name, kind):
        a = conv(
            resample(swish(norm(h, f"{name}.in_layers.0")), kind), f"{name}.in_layers.2", padding=1
        )
        e = F.linear(swish(emb), w[f"{name}.emb_layers.1.weight"], w[f"{name}.emb_layers.1.bias"])[
            :, :, None, None
        ]
        if form.scale_shift:
            scale, shift = e.chunk(2, 1)
            a = norm(a, f"{name}.out_layers.0") * (1 + scale) + shift
        else:
            a = norm(a + e, f"{name}.out_layers.0")
        a = conv(swish(a), f"{name}.out_layers.3", padding=1)
        h = resample(h, kind)
        return a + (
            conv(h, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in w else h
        )

    def attend(h, name):
        b, c, *size = h.shape
        n = heads(c)
        weight = w[f"{name}.qkv.weight"].reshape(3 * c, c)
        qkv = (
            torch.einsum("oc,bct->bot", weight, norm(h, f"{name}.norm").flatten(2))
            + w[f"{name}.qkv.bias"][:, None]
        )
        if order == "legacy":  # head by head: q, k, v
            q, k, v = (qkv.view(b, n, 3, c // n, -1)[:, :, i] for i in range(3))
        else:
            q, k, v = (qkv.view(b, 3, n, c // n, -1)[:, i] for i in range(3))
        a = attention(q, k, v).reshape(b, c, -1)
        a = (
            torch.einsum("oc,bct->bot", w[f"{name}.proj_out.weight"].reshape(c, c), a)
            + w[f"{name}.proj_out.bias"][:, None]
        )
        return h + a.view(b, c, *size)

    h, kept = x, []
    for name, kind, *_ in adm_plan(form):
        if kind == "first":
            h = conv(h, name, padding=1)
            kept.append(h)
        elif kind == "push":
            kept.append(h)
        elif kind == "pop":
            h = torch.cat([h, kept.pop()], 1)
        elif kind == "attention":
            h = attend(h, name)
        elif kind == "res" or form.residual:
            h = res(h, name, kind)
        elif kind == "down":
            h = conv(h, f"{name}.op", stride=2, padding=1)
        else:
            h = conv(resample(h, "up"), f"{name}.conv", padding=1)
    return conv(swish(norm(h, "out.0")), "out.2", padding=1)


# ---------------------------------------------------------------- DDPM "simple"


def _res_names(m, name, n_in, n_out, emb):
    m.norm(f"{name}.norm1", n_in)
    m.layer(f"{name}.conv1", n_out, n_in, 3, 3)
    m.layer(f"{name}.temb_proj", n_out, emb)
    m.norm(f"{name}.norm2", n_out)
    m.layer(f"{name}.conv2", n_out, n_out, 3, 3)
    if n_in != n_out:
        m.layer(f"{name}.nin_shortcut", n_out, n_in, 1, 1)


def _attention_names(m, name, width):
    m.norm(f"{name}.norm", width)
    for leaf in ("q", "k", "v", "proj_out"):
        m.layer(f"{name}.{leaf}", width, width, 1, 1)


def make_ddpm(form, seed=0):
    m, first, emb = Maker(seed), form.widths[0], 4 * form.widths[0]
    m.layer("temb.dense.0", emb, first)
    m.layer("temb.dense.1", emb, emb)
    m.layer("conv_in", first, form.inputs, 3, 3)
    width, skips, levels = first, [first], len(form.widths)
    for i, out in enumerate(form.widths):
        for j in range(form.blocks):
            _res_names(m, f"down.{i}.block.{j}", width, out, emb)
            width = out
            if i in form.attends:
                _attention_names(m, f"down.{i}.attn.{j}", width)
            skips.append(width)
        if i < levels - 1:
            m.layer(f"down.{i}.downsample.conv", width, width, 3, 3)
            skips.append(width)
    for k in (1, 2):
        _res_names(m, f"mid.block_{k}", width, width, emb)
    _attention_names(m, "mid.attn_1", width)
    for i in reversed(range(levels)):
        for j in range(form.blocks + 1):
            _res_names(m, f"up.{i}.block.{j}", width + skips.pop(), form.widths[i], emb)
            width = form.widths[i]
            if i in form.attends:
                _attention_names(m, f"up.{i}.attn.{j}", width)
        if i:
            m.layer(f"up.{i}.upsample.conv", width, width, 3, 3)
    m.norm("norm_out", width)
    m.layer("conv_out", form.outputs, width, 3, 3)
    return m.tensors


def ddpm_forward(w, form, x, t):
    first = form.widths[0]
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(first // 2) / (first // 2 - 1))
    angle = t[:, None].float() * frequencies
    emb = torch.cat([angle.sin(), angle.cos()], 1)

    def linear(h, name):
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(h, name):
        return F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    def conv(h, name, **how):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **how)

    def res(h, name):
        a = conv(swish(norm(h, f"{name}.norm1")), f"{name}.conv1", padding=1)
        a = a + linear(swish(emb), f"{name}.temb_proj")[:, :, None, None]
        a = conv(swish(norm(a, f"{name}.norm2")), f"{name}.conv2", padding=1)
        return a + (conv(h, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in w else h)

    def attend(h, name):
        n = norm(h, f"{name}.norm")
        q, k, v = (conv(n, f"{name}.{leaf}").flatten(2)[:, None] for leaf in "qkv")
        return h + conv(attention(q, k, v)[:, 0].view_as(h), f"{name}.proj_out")

    emb = linear(swish(linear(emb, "temb.dense.0")), "temb.dense.1")
    levels = len(form.widths)
    h = conv(x, "conv_in", padding=1)
    kept = [h]
    for i in range(levels):
        for j in range(form.blocks):
            h = res(h, f"down.{i}.block.{j}")
            if i in form.attends:
                h = attend(h, f"down.{i}.attn.{j}")
            kept.append(h)
        if i < levels - 1:
            h = conv(F.pad(h, (0, 1, 0, 1)), f"down.{i}.downsample.conv", stride=2)
            kept.append(h)
    h = res(attend(res(h, "mid.block_1"), "mid.attn_1"), "mid.block_2")
    for i in reversed(range(levels)):
        for j in range(form.blocks + 1):
            h = res(torch.cat([h, kept.pop()], 1), f"up.{i}.block.{j}")
            if i in form.attends:
                h = attend(h, f"up.{i}.attn.{j}")
        if i:
            h = conv(
                h.repeat_interleave(2, 2).repeat_interleave(2, 3),
                f"up.{i}.upsample.conv",
                padding=1,
            )
    return conv(swish(norm(h, "norm_out")), "conv_out", padding=1)
