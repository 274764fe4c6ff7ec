"""The Triton kernels of the fused solve: one program takes one row through all of its steps, forth or back.

A step is a few hundred products that depend on the step before, so launches are all that it costs when every operation
is a kernel. Here the row's state and all weights stay in registers, the noise is a counter-based hash (Philox: Salmon
et al. 2011) that the backward pass takes again, and the only memory traffic per step is the state. The backward pass
takes each step again from its stored state, adds up the row's share of the weights' gradients in registers and writes
it once; the shares are summed outside, in a fixed order, so gradients are the same in every run.

Tiles are (D, H): a coordinate per row, a hidden unit per column, padded with zeros to powers of two.
"""

import triton
import triton.language as tl

# What the drift is made of, see `neurodyn.solvers.fused`: the network alone, priced against a prior, or a control.
ALONE, PRICED, STEERED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)

# Numbers that change from batch to batch: kernels are not compiled anew where one of them is 1 or a multiple of 16.
VARYING = ["num_steps", "rows", "series", "shift_gap", "shift_row", "steps_row"]


@triton.jit
def _softplus(x):
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _activate(x, SILU: tl.constexpr):
    """The activation of a hidden layer and its slope."""
    gate = tl.sigmoid(x)
    if SILU:
        value, slope = x * gate, gate * (1.0 + x * (1.0 - gate))
    else:
        value, slope = _softplus(x), gate
    return value, slope


@triton.jit
def _tile(pointer, i, h, d, size):
    inside = (i[:, None] < d) & (h[None, :] < size)
    return tl.load(pointer + i[:, None] * size + h[None, :], mask=inside, other=0.0)


@triton.jit
def _put_tile(pointer, i, h, d, size, value):
    inside = (i[:, None] < d) & (h[None, :] < size)
    tl.store(pointer + i[:, None] * size + h[None, :], value, mask=inside)


@triton.jit
def _row(pointer, i, d):
    return tl.load(pointer + i, mask=i < d, other=0.0)


@triton.jit
def _put_row(pointer, i, d, value):
    tl.store(pointer + i, value, mask=i < d)


@triton.jit
def _increment(noise, key, sample, own, k, wide, row, i, d, root, GIVEN: tl.constexpr):
    """dW of one step, (D,): given, or a hash of the row's key, its sample, its own step and the coordinate."""
    if GIVEN:
        dw = _row(noise + (k * wide + row) * d, i, d)
    else:
        nothing = i * 0
        first, second, _, _ = tl.philox(
            key,
            i.to(tl.uint32),
            (nothing + own).to(tl.uint32),
            (nothing + sample).to(tl.uint32),
            nothing.to(tl.uint32),
        )
        uniform = tl.uint_to_uniform_float(first)
        normal, _ = tl.pair_uniform_to_normal(uniform, tl.uint_to_uniform_float(second))
        dw = tl.where(i < d, normal.to(root.dtype) * root, 0.0)
    return dw


@triton.jit(do_not_specialize=VARYING)
def fused_forward(
    z0,
    weights,
    shift,
    offset,
    gain,
    steps,
    gap_of,
    noise,
    keys,
    path,
    cost,
    moves,
    num_steps,
    rows,
    series,
    d,
    size,
    prior_size,
    noise_size,
    prior_weights,
    shift_gap,
    shift_row,
    steps_row,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    D: tl.constexpr,
    HB: tl.constexpr,
    KB: tl.constexpr,
    JB: tl.constexpr,
    FORM: tl.constexpr,
    SILU: tl.constexpr,
    FULL: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """Rows from z0 through all steps: every state, the price of each gap, and how many steps moved the row."""
    row = tl.program_id(0).to(tl.int64)
    wide = row * 0 + rows
    one = row % series
    sample = (row // series).to(tl.int32)
    i, h, u, j = tl.arange(0, D), tl.arange(0, HB), tl.arange(0, KB), tl.arange(0, JB)

    pointer = weights
    net_in = _tile(pointer, i, h, d, size)
    net_out = _tile(pointer + d * size, i, h, d, size)
    net_bias = _row(pointer + 2 * d * size, i, d)
    pointer += 2 * d * size + d
    if FORM != ALONE:
        prior_in = _tile(pointer, i, u, d, prior_size)
        prior_shift = _row(pointer + d * prior_size, u, prior_size)
        prior_out = _tile(pointer + (d + 1) * prior_size, i, u, d, prior_size)
        prior_bias = _row(pointer + (2 * d + 1) * prior_size, i, d)
    pointer += prior_weights
    noise_in = _tile(pointer, i, j, d, noise_size)
    noise_shift = _tile(pointer + d * noise_size, i, j, d, noise_size)
    noise_out = _tile(pointer + 2 * d * noise_size, i, j, d, noise_size)
    noise_bias = _row(pointer + 3 * d * noise_size, i, d)

    key = row
    if not GIVEN:
        key = tl.load(keys + one)
    z = _row(z0 + row * d, i, d)
    _put_row(path + row * d, i, d, z)
    paid = tl.zeros_like(z)
    last = -1
    own = 0
    for k in range(num_steps):
        dt = tl.load(steps + one * steps_row + k)
        gap = tl.load(gap_of + k)
        moved = _row(shift + gap * shift_gap + one * shift_row, h, size)
        dw = _increment(noise, key, sample, own, k, wide, row, i, d, tl.sqrt(dt), GIVEN)
        own += (dt > 0).to(tl.int32)

        hidden, _ = _activate(tl.sum(z[:, None] * net_in, 0) + moved, SILU)
        net = tl.sum(hidden[None, :] * net_out, 1) + net_bias
        spread = tl.sum(_softplus(z[:, None] * noise_in + noise_shift) * noise_out, 1) + noise_bias
        g = LOW + (HIGH - LOW) * tl.sigmoid(spread)
        drift = net
        if FORM != ALONE:
            prior_hidden = _softplus(tl.sum(z[:, None] * prior_in, 0) + prior_shift)
            prior = tl.sum(prior_hidden[None, :] * prior_out, 1) + prior_bias
            control = (net - prior) / g
            if FORM == STEERED:
                place = (one * num_steps + k) * d
                if FULL:
                    matrix = _tile(gain + place * d, i, i, d, d)
                    pushed = tl.sum(matrix * z[None, :], 1)
                else:
                    pushed = _row(gain + place, i, d) * z
                control = _row(offset + place, i, d) + pushed + net
                drift = prior + g * control
            paid = tl.where(gap == last, paid, 0.0) + 0.5 * control * control * dt
            tl.store(cost + gap * wide + row, tl.sum(tl.where(i < d, paid, 0.0), 0))
            last = gap
        z = z + drift * dt + g * dw
        _put_row(path + ((k + 1) * wide + row) * d, i, d, z)
    tl.store(moves + row, own)


@triton.jit(do_not_specialize=VARYING)
def fused_backward(
    path,
    weights,
    shift,
    offset,
    gain,
    steps,
    gap_of,
    slot_of,
    noise,
    keys,
    moves,
    seen_grad,
    cost_grad,
    z0_grad,
    weights_grad,
    shift_grad,
    offset_grad,
    gain_grad,
    num_steps,
    rows,
    series,
    d,
    size,
    prior_size,
    noise_size,
    prior_weights,
    num_weights,
    shift_gap,
    shift_row,
    steps_row,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    D: tl.constexpr,
    HB: tl.constexpr,
    KB: tl.constexpr,
    JB: tl.constexpr,
    FORM: tl.constexpr,
    SILU: tl.constexpr,
    FULL: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """Rows back from the last step: gradients to z0, to the context's parts, and each row's share of the weights'."""
    row = tl.program_id(0).to(tl.int64)
    wide = row * 0 + rows
    one = row % series
    sample = (row // series).to(tl.int32)
    i, h, u, j = tl.arange(0, D), tl.arange(0, HB), tl.arange(0, KB), tl.arange(0, JB)

    pointer = weights
    net_in = _tile(pointer, i, h, d, size)
    net_out = _tile(pointer + d * size, i, h, d, size)
    net_bias = _row(pointer + 2 * d * size, i, d)
    pointer += 2 * d * size + d
    if FORM != ALONE:
        prior_in = _tile(pointer, i, u, d, prior_size)
        prior_shift = _row(pointer + d * prior_size, u, prior_size)
        prior_out = _tile(pointer + (d + 1) * prior_size, i, u, d, prior_size)
        prior_bias = _row(pointer + (2 * d + 1) * prior_size, i, d)
        to_prior_in, to_prior_shift = tl.zeros_like(prior_in), tl.zeros_like(prior_shift)
        to_prior_out, to_prior_bias = tl.zeros_like(prior_out), tl.zeros_like(prior_bias)
    pointer += prior_weights
    noise_in = _tile(pointer, i, j, d, noise_size)
    noise_shift = _tile(pointer + d * noise_size, i, j, d, noise_size)
    noise_out = _tile(pointer + 2 * d * noise_size, i, j, d, noise_size)
    noise_bias = _row(pointer + 3 * d * noise_size, i, d)

    to_net_in, to_net_out, to_net_bias = tl.zeros_like(net_in), tl.zeros_like(net_out), tl.zeros_like(net_bias)
    to_noise_in, to_noise_shift = tl.zeros_like(noise_in), tl.zeros_like(noise_shift)
    to_noise_out, to_noise_bias = tl.zeros_like(noise_out), tl.zeros_like(noise_bias)

    key = row
    if not GIVEN:
        key = tl.load(keys + one)
    own = tl.load(moves + row)
    slot = tl.load(slot_of + num_steps)
    to_z = tl.load(seen_grad + (slot * wide + row) * d + i, mask=(i < d) & (slot >= 0), other=0.0)
    to_shift = tl.zeros((HB,), to_z.dtype)
    last = -1
    for back in range(num_steps):
        k = num_steps - 1 - back
        dt = tl.load(steps + one * steps_row + k)
        gap = tl.load(gap_of + k)
        own -= (dt > 0).to(tl.int32)
        z = _row(path + (k * wide + row) * d, i, d)
        moved = _row(shift + gap * shift_gap + one * shift_row, h, size)
        dw = _increment(noise, key, sample, own, k, wide, row, i, d, tl.sqrt(dt), GIVEN)

        # the step again
        hidden, slope = _activate(tl.sum(z[:, None] * net_in, 0) + moved, SILU)
        net = tl.sum(hidden[None, :] * net_out, 1) + net_bias
        before = z[:, None] * noise_in + noise_shift
        noise_hidden, noise_slope = _activate(before, False)
        gate = tl.sigmoid(tl.sum(noise_hidden * noise_out, 1) + noise_bias)
        g = LOW + (HIGH - LOW) * gate

        # back through z + drift dt + g dw, and through the price
        to_next = to_z
        to_net = to_next * dt
        to_g = to_next * dw
        if FORM != ALONE:
            charged = tl.load(cost_grad + gap * wide + row) * dt
            prior_hidden, prior_slope = _activate(tl.sum(z[:, None] * prior_in, 0) + prior_shift, False)
            prior = tl.sum(prior_hidden[None, :] * prior_out, 1) + prior_bias
            if FORM == PRICED:
                control = (net - prior) / g
                push = charged * control / g
                to_net += push
                to_prior = -push
                to_g -= push * control
            else:
                place = (one * num_steps + k) * d
                own_place = (row * num_steps + k) * d
                control = _row(offset + place, i, d) + net
                if FULL:
                    matrix = _tile(gain + place * d, i, i, d, d)
                    control += tl.sum(matrix * z[None, :], 1)
                else:
                    diagonal = _row(gain + place, i, d)
                    control += diagonal * z
                to_prior = to_next * dt
                to_g += to_next * control * dt
                to_net = to_next * g * dt + charged * control
                _put_row(offset_grad + own_place, i, d, to_net)
                if FULL:
                    _put_tile(gain_grad + own_place * d, i, i, d, d, to_net[:, None] * z[None, :])
                    to_z += tl.sum(matrix * to_net[:, None], 0)
                else:
                    _put_row(gain_grad + own_place, i, d, to_net * z)
                    to_z += diagonal * to_net
            to_prior_bias += to_prior
            to_prior_out += to_prior[:, None] * prior_hidden[None, :]
            to_before_prior = tl.sum(to_prior[:, None] * prior_out, 0) * prior_slope
            to_prior_shift += to_before_prior
            to_prior_in += z[:, None] * to_before_prior[None, :]
            to_z += tl.sum(prior_in * to_before_prior[None, :], 1)

        to_net_bias += to_net
        to_net_out += to_net[:, None] * hidden[None, :]
        to_before_net = tl.sum(to_net[:, None] * net_out, 0) * slope
        to_net_in += z[:, None] * to_before_net[None, :]
        to_z += tl.sum(net_in * to_before_net[None, :], 1)
        to_shift = tl.where(gap == last, to_shift, 0.0) + to_before_net
        _put_row(shift_grad + (gap * wide + row) * size, h, size, to_shift)
        last = gap

        to_spread = to_g * (HIGH - LOW) * gate * (1.0 - gate)
        to_noise_bias += to_spread
        to_noise_out += to_spread[:, None] * noise_hidden
        to_before = to_spread[:, None] * noise_out * noise_slope
        to_noise_shift += to_before
        to_noise_in += z[:, None] * to_before
        to_z += tl.sum(noise_in * to_before, 1)

        slot = tl.load(slot_of + k)
        to_z += tl.load(seen_grad + (slot * wide + row) * d + i, mask=(i < d) & (slot >= 0), other=0.0)

    _put_row(z0_grad + row * d, i, d, to_z)
    pointer = weights_grad + row * num_weights
    _put_tile(pointer, i, h, d, size, to_net_in)
    _put_tile(pointer + d * size, i, h, d, size, to_net_out)
    _put_row(pointer + 2 * d * size, i, d, to_net_bias)
    pointer += 2 * d * size + d
    if FORM != ALONE:
        _put_tile(pointer, i, u, d, prior_size, to_prior_in)
        _put_row(pointer + d * prior_size, u, prior_size, to_prior_shift)
        _put_tile(pointer + (d + 1) * prior_size, i, u, d, prior_size, to_prior_out)
        _put_row(pointer + (2 * d + 1) * prior_size, i, d, to_prior_bias)
    pointer += prior_weights
    _put_tile(pointer, i, j, d, noise_size, to_noise_in)
    _put_tile(pointer + d * noise_size, i, j, d, noise_size, to_noise_shift)
    _put_tile(pointer + 2 * d * noise_size, i, j, d, noise_size, to_noise_out)
    _put_row(pointer + 3 * d * noise_size, i, d, to_noise_bias)
