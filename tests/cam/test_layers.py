"""Which taps are layers: told by following axes, judged by tracing at other sizes; layers by number, and several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from nets import conv, images, tiny

import jaxsal as js
from jaxsal.cams._axes import Part, _reshape, source
from jaxsal.cams._layers import resolve_layers

BLOCKS = jnp.linspace(0.1, 0.4, 4 * 9).reshape(4, 3, 3, 1, 1) * jnp.eye(3)  # four of 3 x 3 x 3 x 3


def t(x):
    return js.tap(x, "t")


def end(x):
    return x.reshape(x.shape[0], -1).sum(-1, keepdims=True) * jnp.ones(3)


def tokens(x):
    n, h, w, c = x.shape
    return x.reshape(n, h * w, c)


def back(y, x):
    return y.reshape(*x.shape[:3], -1)


def attention(y, heads=4):
    """Weights [n heads q k] and values [n k heads d]."""
    n, count, _ = y.shape
    q = (y @ jnp.ones((3, 8))).reshape(n, count, heads, 2)
    return jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, q)), q


def windows(x, size=4):
    n, h, w, c = x.shape
    y = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(-1, size, size, c)


def unwindowed(y, x, size=4):
    n, h, w, c = x.shape
    return y.reshape(n, h // size, w // size, size, size, c).transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


def classed(x):
    return jnp.concatenate([jnp.ones((x.shape[0], 1, 3)), tokens(x)], 1)


def scanned(x, tapped):
    return end(jax.lax.scan(lambda y, k: (tapped(conv(y, k)), None), x, BLOCKS)[0])


def recurrent(x):
    steps = jnp.moveaxis(x, 1, 0)
    return end(jax.lax.scan(lambda state, row: (t(state + row), None), 0 * steps[0], steps)[0])


def attended(x):
    weights, values = attention(tokens(x))
    return end(t(back(jnp.einsum("nhqk,nkhd->nqhd", weights, values).reshape(*tokens(x).shape[:2], -1), x)))


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def space_to_depth(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def depth_to_space(x):
    n, h, w, c = x.shape
    y = (x @ jnp.ones((c, 4 * c))).reshape(n, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, 2 * h, 2 * w, c)


FUNCTIONS = {
    "convolution": lambda x: end(t(conv(x, BLOCKS[0], 2))),
    "pool": lambda x: end(t(pool(x))),
    "channels first": lambda x: end(t(x.transpose(0, 3, 1, 2))),
    "transposed": lambda x: end(t(x.swapaxes(1, 2))),
    "padded and rolled": lambda x: end(t(jnp.roll(jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), 1, 1)[:, 1:])),
    "concatenated": lambda x: end(t(jnp.concatenate([x, 2 * x], -1))),
    "repeated": lambda x: end(t(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))),
    "squeezed and excited": lambda x: end(t(x * jax.nn.sigmoid(x.mean((1, 2), keepdims=True) @ jnp.ones((3, 3))))),
    "multiplied by each other": lambda x: end(t(x[..., :1] * jnp.ones(4) + x.mean((1, 2, 3), keepdims=True))),
    "outer product": lambda x: end(t(x[:, :, :1] * x[:, :1])),
    "space to depth": lambda x: end(t(space_to_depth(x))),
    "depth to space": lambda x: end(t(depth_to_space(x))),
    "windows": lambda x: end(unwindowed(t(windows(x)), x)),
    "windows of each image": lambda x: end(t(windows(x).reshape(x.shape[0], -1, 16, 3))),
    "cut across and back": lambda x: end(t(x.reshape(-1, 3, x.shape[1], x.shape[2]).reshape(x.shape))),
    "out of windows": lambda x: end(t(unwindowed(2 * windows(x), x))),
    "heads": lambda x: end(t(attention(tokens(x))[1])),
    "attention": lambda x: end(t(attention(tokens(x))[0])),
    "heads with a class token": lambda x: end(t(attention(classed(x))[1])),
    "tokens on the grid": lambda x: end(t(back(classed(x)[:, 1:], x))),
    "attended": attended,
    "one image at a time": jax.vmap(lambda x: end(t(conv(x[None], BLOCKS[0])[0])[None])[0]),
    "images not first": lambda x: end(t(jax.vmap(lambda y: conv(y, BLOCKS[0]), 1, 1)(jnp.stack([x, 2 * x], 1))[:, 1])),
    "mapped": lambda x: jax.lax.map(lambda x: end(t(2 * x)[None])[0], x),
    "scanned": lambda x: scanned(x, t),
    "after a scan": lambda x: end(t(jax.lax.scan(lambda y, k: (conv(y, k), None), x, BLOCKS)[0])),
    "recurrent": recurrent,
    "stacked": lambda x: end(jnp.moveaxis(t(jnp.stack([x[..., 0] * k for k in range(4)])), 1, 0)),
    "jit and remat": lambda x: end(jax.checkpoint(jax.jit(lambda y: jax.nn.relu(t(conv(y, BLOCKS[0])))))(x)),
    "branch": lambda x: end(jax.lax.cond(x.sum() > 0, lambda y: t(2 * y), lambda y: y, x)),
    "after a while loop": lambda x: end(t(jax.lax.fori_loop(0, jnp.int32(x.sum()), lambda i, y: 0.5 * y, x))),
    "softmax over cells": lambda x: end(t(back(jax.nn.softmax(tokens(x), 1), x))),
    "unstacked": lambda x: end(t(jnp.stack(jnp.unstack(x, axis=1), 1))),
    "tiled": lambda x: end(t(jnp.tile(x, (1, 2, 2, 1)))),
    "of a custom order": lambda x: end(jnp.moveaxis(t(jnp.moveaxis(x, 3, 0)[jnp.array([0, 1, 2, 0])]), 0, -1)),
    "chosen rows": lambda x: end(t(x[:, jnp.arange(0, x.shape[1], 2)])),
}
UNKNOWN = (
    "chosen rows",
    "unstacked",
    "tiled",
    "cut across and back",
)  # which row is which is not known: taken by name only


def is_grid(f, n):
    """From shapes alone: axis 0 grows with the images, axis 1 with their rows, axis 2 with their columns, no other."""

    def shape(n, h, w):
        return np.array(js.taps(f, jax.ShapeDtypeStruct((n, h, w, 3), jnp.float32))["t"].shape)

    base = shape(n, 8, 8)
    if len(base) != 4:
        return False
    grows = [shape(*size) != base for size in ((n + 1, 8, 8), (n, 16, 8), (n, 8, 16))]
    return bool((np.array(grows) == np.eye(3, 4, dtype=bool)).all())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_and_columns(name):
    """Four images, blocks and heads; and one image, whose axis fits anywhere."""
    f = FUNCTIONS[name]
    for n in (4, 1):
        x = jax.ShapeDtypeStruct((n, 8, 8, 3), jnp.float32)
        grid = is_grid(f, n)
        for layer in ["t"] if name in UNKNOWN else ["t", None, 0, -1]:
            if grid:
                assert resolve_layers(f, x, layer, reach="slope") == ["t"]
            else:
                with pytest.raises(ValueError, match="layer"):
                    resolve_layers(f, x, layer, reach="slope")


def test_merging_and_splitting():
    """Random transposes and reshapes, judged by the coordinates that they move."""
    rng = np.random.default_rng(0)
    told = {-1: 0, 0: 0, 1: 0, 2: 0}
    for _ in range(400):
        base = [*rng.choice([1, 2, 3, 4, 6, 8], 3), rng.choice([1, 2, 3])]
        coordinates = np.stack(np.meshgrid(*map(np.arange, base), indexing="ij"))
        axes = (*[(Part(i, 1, int(size), int(size)),) for i, size in enumerate(base[:-1])], ())
        for _ in range(3):
            order = rng.permutation(len(axes)) if rng.random() < 0.5 else np.arange(len(axes))
            axes = tuple(axes[i] for i in order)
            coordinates = coordinates.transpose(0, *order + 1)
            rest, out = coordinates[0].size, []
            while rest > 1 and len(out) < 5:
                out.append(int(rng.choice([d for d in range(1, rest + 1) if rest % d == 0])))
                rest //= out[-1]
            out = tuple(int(size) for size in rng.permutation([*out, rest]))
            axes = _reshape({}, [coordinates.shape[1:]], [axes], out)
            coordinates = coordinates.reshape(4, *out)
        for i, axis in enumerate(axes):
            at = np.moveaxis(coordinates, i + 1, 1).reshape(4, coordinates.shape[i + 1], -1)
            moves = [c for c in range(3) if (at[c] != at[c][:1]).any()]
            if at.shape[1] == 1 or source(axis) is None:
                continue
            told[source(axis)] += 1
            if source(axis) >= 0:  # that coordinate alone moves, forwards
                assert moves == [source(axis)] and (np.diff(at[moves[0]], axis=0) >= 0).all()
            elif len(moves) == 1:  # one alone moves, but not forwards from end to end
                steps = np.diff(at[moves[0]], axis=0)
                assert not (steps > 0).all() or (at[moves[0]][-1] - at[moves[0]][0] + steps[0] < base[moves[0]]).any()
    assert min(told.values()) > 20, told


def test_both_kinds_are_there():
    kinds = {name: is_grid(f, 4) for name, f in FUNCTIONS.items()}
    assert 8 <= sum(kinds.values()) <= len(kinds) - 8, kinds
    assert not kinds["scanned"] and not kinds["heads"] and kinds["mapped"] and kinds["out of windows"]


class ViT(linen.Module):
    """Patches, a class token, one attention layer; read at the class token."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(32, (8, 8), (8, 8), name="patch")(x).reshape(x.shape[0], -1, 32)
        token = self.param("token", linen.initializers.normal(), (1, 1, 32))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 32)), x], 1)
        return linen.Dense(5)((x + linen.MultiHeadDotProductAttention(4, name="att")(x))[:, 0])


def test_heads_are_no_layer():
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(ViT().init, jax.random.key(0), x)
    variables = jax.tree.map(lambda v: jnp.zeros(v.shape), shapes)
    f = js.classifiers.wrap(ViT(), variables)
    assert js.taps(f, x)["att.value"].shape == (2, 17, 4, 8)
    assert resolve_layers(f, x, None) == ["patch"]  # 17 tokens and 4 heads have been taken for rows and columns
    words = r"'att.value': .*axes \(images, rows·columns, other, other\)"
    with pytest.raises(ValueError, match=words):
        resolve_layers(f, x, "att.value")
    with pytest.raises(ValueError, match=words):  # what cam_layer says is not overlooked either
        resolve_layers(js.classifiers.wrap(ViT(), variables, cam_layer="att.value"), x, None)
    with pytest.raises(ValueError, match=r"'att': got shape \(2, 17, 32\).*tokens.reshape"):
        resolve_layers(f, x, "att")


def test_no_layer_on_the_grid():
    """Refused with the axes and what to do about them."""
    x = images(2, 8)
    words = r"t \(2, 64, 4, 2\) axes \(images, rows·columns, other, other\), expected .*js.tap\(tokens.reshape"
    with pytest.raises(ValueError, match=words):
        js.grad_cam(FUNCTIONS["heads"], x, 1)


def test_taps_in_a_loop():
    """With as many images as blocks, blocks have been taken for images."""
    f = FUNCTIONS["scanned"]
    for n in (4, 2):
        with pytest.raises(ValueError, match=r"layer 't': got shape .* a tap inside a loop.*Tap what the loop gives"):
            js.grad_cam(f, images(n, 8), 1, layer="t")


# Functions with a tap "t" and another, "s"; whether t reaches the logits, and whether with a derivative.
REACH = {
    "read": (lambda x: end(js.tap(t(x) * 2, "s")), True, True),
    "not read": (lambda x: (t(x), end(js.tap(x, "s")))[1], False, False),
    "another head": (lambda x: (t(2 * x).sum(), end(js.tap(x, "s")))[1], False, False),
    "stop_gradient": (lambda x: end(js.tap(x, "s") * jax.lax.stop_gradient(t(2 * x))), True, False),
    "rounded": (lambda x: end(js.tap(x, "s") + jnp.round(t(2 * x))), True, False),
    "compared": (lambda x: end(jnp.where(t(2 * x) > 1, js.tap(x, "s"), 0)), True, False),
    "indices": (lambda x: end(js.tap(x, "s")) * t(2 * x)[..., 0].argmax(2).sum(1)[:, None], True, False),
    "carried": (lambda x: end(js.tap(jax.lax.scan(lambda c, k: (c * k, None), t(x), jnp.ones(3))[0], "s")), True, True),
    "dropped by the loop": (
        lambda x: end(js.tap(jax.lax.scan(lambda c, k: ((c[1], c[1]), None), (t(x), 2 * x), jnp.ones(3))[0][1], "s")),
        False,
        False,
    ),
    "one round late": (
        lambda x: end(
            js.tap(jax.lax.scan(lambda c, k: ((c[1], c[1] + c[0]), None), (t(x), x), jnp.ones(3))[0][0], "s")
        ),
        True,
        True,
    ),
    "straight through": (lambda x: end(js.tap(straight(t(x)), "s")), True, True),
}


@jax.custom_vjp
def straight(x):
    return jnp.round(x)


straight.defvjp(lambda x: (jnp.round(x), None), lambda _, ct: (ct,))


@pytest.mark.parametrize("name", REACH)
def test_what_reaches_the_logits(name):
    f, value, slope = REACH[name]
    x = images(2, 6)
    features, head = js.split(f, "t")
    with jax.disable_jit():
        gradient = jax.grad(lambda a: head(x, a).sum())(features(x))
        moved = head(x, -features(x)) != head(x, features(x))
    assert (bool((gradient != 0).any()), bool(moved.any())) == (slope, value)  # the function is what it is said to be
    for reach, there in (("slope", slope), ("value", value), (None, True)):
        if there:
            assert resolve_layers(f, x, "t", reach=reach) == ["t"]
        else:
            with pytest.raises(ValueError, match=r"layer 't': got .*logits.* all zeros, expected a layer that"):
                resolve_layers(f, x, "t", reach=reach)
    assert resolve_layers(f, x, None, reach="slope") == ["s" if "s" in list(js.taps(f, x))[-1:] or not slope else "t"]


def test_methods_say_that_a_layer_is_not_read():
    f, x = REACH["not read"][0], images(2, 6)
    for method in (js.grad_cam, js.layer_cam, js.eigen_grad_cam, js.ablation_cam, js.guided_grad_cam):
        with pytest.raises(ValueError, match="no way from it to the logits: the map would be all zeros"):
            method(f, x, 1, layer="t")
    assert js.eigen_cam(f, x, 1, layer="t").shape == (2, 6, 6)  # what the logits do not see can still be looked at


def test_numbers():
    f, x = tiny(), images()
    assert [resolve_layers(f, x, i) for i in (0, 1, -1, -2, np.int64(1))] == [
        ["early"],
        ["late"],
        ["late"],
        ["early"],
        ["late"],
    ]
    assert resolve_layers(f, x, [0, "late", -1]) == resolve_layers(f, x, (0, "late", -1)) == ["early", "late", "late"]
    with pytest.raises(ValueError, match=r"number of the layer: got 2, expected -2 \(early\) to 1 \(late\)"):
        js.grad_cam(f, x, 1, layer=2)
    with pytest.raises(ValueError, match=r"layer: got \(\), expected one layer at least"):
        js.grad_cam(f, x, 1, layer=[])
    with pytest.raises(TypeError, match=r"layer: got True, .*a name .*a number, or a list"):
        resolve_layers(f, x, [True])
    with pytest.raises(TypeError):  # annotations are checked in tests
        resolve_layers(f, x, 1.5)


LAYERED = [name for name, m in js.METHODS.items() if m.__module__.startswith("jaxsal.cams.")]


def test_methods_are_all_there():
    assert len(LAYERED) == 16, LAYERED


@pytest.mark.parametrize("name", LAYERED)
def test_several_layers_in_every_method(name):
    """Shapes only; one that is not linear by layers is below."""
    x = jax.ShapeDtypeStruct((2, 12, 12, 3), jnp.float32)
    several = jax.eval_shape(lambda x: js.METHODS[name](tiny(), x, 1, layer=["early", -1]), x)
    assert several.shape[:3] == (2, 12, 12)


@pytest.mark.parametrize("name", ["grad_cam", "ablation_cam"])
def test_several_layers_are_the_mean_of_their_maps(name):
    f, x, method = tiny(), images(), js.METHODS[name]
    single = [np.asarray(method(f, x, 3, layer=layer), np.float64) for layer in ("early", "late")]
    assert np.abs(single[0] - single[1]).max() > 0.1
    np.testing.assert_allclose(method(f, x, 3, layer=["early", 1]), sum(single) / 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"maps of several layers: got sizes \[\(12, 12\), \(6, 6\)\]"):
        method(f, x, 3, layer=["early", "late"], size="layer")


@pytest.mark.parametrize(("name", "cells"), [("vgg11", 14), ("vgg16_bn", 14), ("alexnet", 13), ("resnet18", 7)])
def test_default_layers_of_the_zoo(name, cells):
    """The last convolution's ReLU: before the pool of VGG and AlexNet."""
    network = nnx.eval_shape(lambda: js.models.create(name, num_classes=7, rngs=nnx.Rngs(0)))
    found = js.taps(lambda f, x: f(x), network, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert found[network.cam_layer].shape[1:3] == (cells, cells)
    if name != "resnet18":
        names = list(found)
        pooled = found[names[names.index(network.cam_layer) + 1]]
        assert pooled.shape[1:3] == (cells // 2, cells // 2)


def test_layer_of_the_signature_paper():
    network = nnx.eval_shape(lambda: js.models.create("convnext_tiny", num_classes=7, rngs=nnx.Rngs(0)))
    found = js.taps(lambda f, x: f(x), network, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert found["features.5"].shape == (1, 14, 14, 384)  # stage 3 of 4
    assert found[network.cam_layer].shape == (1, 7, 7, 768)


def test_free_batch_size():
    """Shapes that are symbols, as under ``jax.export``."""
    (n,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((n, 12, 12, 3), jnp.float32)
    for layer, name in ((None, "late"), (0, "early"), ("early", "early")):
        assert resolve_layers(tiny(), x, layer, reach="slope") == [name]
