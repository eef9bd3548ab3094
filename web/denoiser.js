/* The denoiser in plain JavaScript: both models, the gate by frequency, and a stream.
 *
 * One file for three places. In an AudioWorklet it registers the processor "denoiser", in a Worker it
 * denoises whole clips, in a page it lends its classes to the pictures. It follows
 * helpers/models/{spectrogram,waveform}.py, helpers/denoise/{stream,gate}.py and reads the weights
 * that helpers/models/export.py describes. Sound is mono Float32Array at 16 kHz, full scale 1.
 */
'use strict';

const SAMPLE_RATE = 16000; // Hz, of the models
const QUANTUM = 128; // samples that an AudioWorklet gets at a time

/* ---- tools ---------------------------------------------------------------------------------- */

/** The DFT of n complex numbers, n = odd number * 2 ** k: radix 2, then the odd part directly. */
class FFT {
  constructor(n) {
    this.n = n;
    this.cos = Float64Array.from({length: n}, (_, i) => Math.cos(2 * Math.PI * i / n));
    this.sin = Float64Array.from({length: n}, (_, i) => Math.sin(2 * Math.PI * i / n));
  }

  /** Transform inRe + i inIm into outRe + i outIm; swap the parts of both for the inverse times n. */
  transform(inRe, inIm, outRe, outIm, n = this.n, from = 0, step = 1, to = 0) {
    if (n % 2) return this.odd(inRe, inIm, outRe, outIm, n, from, step, to);
    const half = n / 2;
    this.transform(inRe, inIm, outRe, outIm, half, from, 2 * step, to);
    this.transform(inRe, inIm, outRe, outIm, half, from + step, 2 * step, to + half);
    for (let k = 0; k < half; k++) {
      const c = this.cos[k * step], s = this.sin[k * step], a = to + k, b = a + half;
      const re = c * outRe[b] + s * outIm[b], im = c * outIm[b] - s * outRe[b];
      outRe[b] = outRe[a] - re;
      outIm[b] = outIm[a] - im;
      outRe[a] += re;
      outIm[a] += im;
    }
  }

  odd(inRe, inIm, outRe, outIm, n, from, step, to) {
    for (let k = 0; k < n; k++) {
      let re = 0, im = 0;
      for (let j = 0; j < n; j++) {
        const c = this.cos[j * k % n * step], s = this.sin[j * k % n * step], i = from + j * step;
        re += c * inRe[i] + s * inIm[i];
        im += c * inIm[i] - s * inRe[i];
      }
      outRe[to + k] = re;
      outIm[to + k] = im;
    }
  }
}

/** Square root of the periodic Hann window. */
const rootHann = n => Float64Array.from({length: n}, (_, i) => Math.sin(Math.PI * i / n));

/** A queue of samples that keeps its memory. */
class Queue {
  constructor() {
    this.data = new Float32Array(4096);
    this.from = this.length = 0;
  }

  push(samples) {
    this.makeRoom(samples.length);
    this.data.set(samples, this.from + this.length);
    this.length += samples.length;
  }

  add(sample) {
    this.makeRoom(1);
    this.data[this.from + this.length++] = sample;
  }

  makeRoom(n) {
    if (this.from + this.length + n <= this.data.length) return;
    const data = 2 * (this.length + n) > this.data.length
      ? new Float32Array(4 * (this.length + n)) : this.data;
    data.set(this.data.subarray(this.from, this.from + this.length));
    this.data = data;
    this.from = 0;
  }

  /** Take the first samples into `target`, all of it. */
  shift(target) {
    for (let i = 0; i < target.length; i++) target[i] = this.data[this.from + i];
    this.drop(target.length);
    return target;
  }

  drop(n) {
    this.from += n;
    this.length -= n;
  }
}

/** Another rate, by a windowed sinc; the sound comes out as late as `width` samples that go in. */
class Resampler {
  constructor(from, to) {
    const divisor = gcd(from, to);
    Object.assign(this, {up: to / divisor, down: from / divisor, at: 0, phase: 0});
    const scale = 0.94 * Math.min(1, to / from); // the edge, of half the lower rate, and a margin
    const width = this.width = Math.ceil(24 / scale);
    this.taps = Array.from({length: this.up}, (_, phase) => Float32Array.from(
      {length: 2 * width}, (_, i) => {
        const t = i - width + 1 - phase / this.up, x = Math.PI * scale * t;
        const window = Math.cos(Math.PI / 2 * clip(Math.abs(t) / width)) ** 2;
        return scale * window * (x ? Math.sin(x) / x : 1);
      }));
    this.waiting = new Queue();
    this.waiting.push(new Float32Array(width - 1));
  }

  push(samples, out) {
    const {waiting, taps} = this, n = 2 * this.width;
    waiting.push(samples);
    while (waiting.length >= this.at + n) {
      const row = taps[this.phase], {data} = waiting, from = waiting.from + this.at;
      let sum = 0;
      for (let i = 0; i < n; i++) sum += row[i] * data[from + i];
      out.add(sum);
      this.phase += this.down;
      this.at += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const done = Math.min(this.at, waiting.length);
    waiting.drop(done);
    this.at -= done;
  }
}

const clip = x => Math.min(Math.max(x, 0), 1);
const gcd = (a, b) => b ? gcd(b, a % b) : a;

/* ---- layers --------------------------------------------------------------------------------- */

const elu = x => x > 0 ? x : Math.exp(x) - 1;
const sigmoid = x => 1 / (1 + Math.exp(-x));

/** y = W x + b, then elu if told so. A row of W is as long as all pieces of x together. */
class Affine {
  constructor(rows, bias, nOut, nPieces, isElu) {
    this.rows = rows;
    this.bias = bias || new Float32Array(nOut);
    this.nPieces = nPieces;
    this.n = rows.length / nOut / nPieces; // numbers in a piece
    this.isElu = isElu;
  }

  /** Pieces of x begin at `from` in each array of `xs`, y at `to`. Four rows go together. */
  apply(xs, from, y, to) {
    const {rows, bias, n, nPieces} = this, nOut = bias.length, length = n * nPieces;
    for (let o = 0; o < nOut; o += 4) {
      const r0 = o * length, r1 = r0 + length, r2 = r1 + length, r3 = r2 + length;
      let a = 0, b = 0, c = 0, d = 0;
      for (let p = 0; p < nPieces; p++) {
        const x = xs[p], at = p * n;
        for (let i = 0; i < n; i++) {
          const v = x[from + i], j = at + i;
          a += rows[r0 + j] * v;
          b += rows[r1 + j] * v;
          c += rows[r2 + j] * v;
          d += rows[r3 + j] * v;
        }
      }
      y[to + o] = a + bias[o];
      if (o + 1 < nOut) y[to + o + 1] = b + bias[o + 1];
      if (o + 2 < nOut) y[to + o + 2] = c + bias[o + 2];
      if (o + 3 < nOut) y[to + o + 3] = d + bias[o + 3];
    }
    if (this.isElu) for (let o = to; o < to + nOut; o++) y[o] = elu(y[o]);
  }
}

const MARGIN = 2; // bins of zeros on both sides of a row of bins: the padding of every convolution

/** One frame of features: `bins` of `channels` numbers, with margins. */
class Row {
  constructor(bins, channels) {
    this.bins = bins;
    this.channels = channels;
    this.data = new Float32Array((bins + 2 * MARGIN) * channels);
  }

  at(bin) {
    return (bin + MARGIN) * this.channels;
  }
}

/** A convolution over the last frames and neighbouring bins, to a row of `bins`. */
class Conv {
  constructor({shape: [height, width, nIn, nOut], data}, bias, stride, isElu) {
    const rows = new Float32Array(data.length), n = height * width * nIn;
    for (let i = 0; i < n; i++) for (let o = 0; o < nOut; o++) rows[o * n + i] = data[i * nOut + o];
    this.affine = new Affine(rows, bias, nOut, height, isElu);
    this.left = width >> 1;
    this.stride = stride;
  }

  apply(frames, y) {
    const xs = frames.map(frame => frame.data);
    for (let bin = 0; bin < y.bins; bin++) {
      this.affine.apply(xs, frames[0].at(this.stride * bin - this.left), y.data, y.at(bin));
    }
    return y;
  }
}

/** A transposed convolution that doubles the bins; even and odd ones have taps of their own. */
class ConvTranspose {
  constructor({shape: [, width, nOut, nIn], data}, bias, isElu) {
    const left = (width - 2) >> 1; // as TensorFlow pads "same" for a stride of 2
    this.phases = [0, 1].map(phase => {
      const taps = [];
      for (let t = width - 1; t >= 0; t--) if ((phase + left - t) % 2 === 0) taps.push(t);
      const rows = new Float32Array(nOut * taps.length * nIn);
      for (let o = 0; o < nOut; o++) taps.forEach((t, k) => rows.set(
        data.subarray((t * nOut + o) * nIn, (t * nOut + o + 1) * nIn), (o * taps.length + k) * nIn));
      return {affine: new Affine(rows, bias, nOut, 1, isElu), first: (phase + left - taps[0]) / 2};
    });
  }

  apply(x, y) {
    for (let bin = 0; bin < y.bins; bin++) {
      const {affine, first} = this.phases[bin % 2];
      affine.apply([x.data], x.at((bin >> 1) + first), y.data, y.at(bin));
    }
    return y;
  }
}

/** A gated recurrent unit as Keras has it (reset after the product), added to its input. */
class ResidualGRU {
  constructor(kernel, recurrent, bias) {
    const n = this.units = recurrent.shape[0];
    this.input = dense(kernel, bias.data.subarray(0, 3 * n), false);
    this.recurrent = dense(recurrent, bias.data.subarray(3 * n), false);
    this.a = new Float32Array(3 * n);
    this.b = new Float32Array(3 * n);
  }

  /** Replace x by x + h, where h `(units,)` is the state, which goes on. */
  apply(x, h) {
    const {a, b, units: n} = this;
    this.input.apply([x], 0, a, 0);
    this.recurrent.apply([h], 0, b, 0);
    for (let i = 0; i < n; i++) {
      const keep = sigmoid(a[i] + b[i]), reset = sigmoid(a[n + i] + b[n + i]);
      h[i] = keep * h[i] + (1 - keep) * Math.tanh(a[2 * n + i] + reset * b[2 * n + i]);
      x[i] += h[i];
    }
  }
}

function dense({shape: [nIn, nOut], data}, bias, isElu) {
  const kernel = {shape: [1, 1, nIn, nOut], data};
  return new Conv(kernel, bias, 1, isElu).affine;
}

/** The weights of an index and its buffer as layers by their names; all that streams can share. */
function readLayers(index, buffer) {
  const bytes = new DataView(buffer);
  if (bytes.byteLength !== index.bytes || index.dtype !== 'float16') {
    throw new Error(`The weights of ${index.method} are not those of their index.`);
  }
  const tensors = {};
  for (const {name, shape, offset} of index.tensors) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) data[i] = half(bytes.getUint16(offset + 2 * i, true));
    tensors[name] = {shape, data};
  }
  const layers = {};
  for (const {name, kind, strides, activation} of index.layers) {
    const kernel = tensors[`${name}/kernel`], bias = tensors[`${name}/bias`];
    const isElu = activation === 'elu', b = bias && bias.data;
    if (kind === 'Conv2D') layers[name] = new Conv(kernel, b, strides[1], isElu);
    if (kind === 'Conv2DTranspose') layers[name] = new ConvTranspose(kernel, b, isElu);
    if (kind === 'Dense') layers[name] = dense(kernel, b, isElu);
    if (kind === 'GRU') layers[name] = new ResidualGRU(kernel, tensors[`${name}/recurrent_kernel`], bias);
  }
  return layers;
}

/** A float16 from its 16 bits. */
function half(bits) {
  const exponent = bits >> 10 & 31, fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}

/* ---- what both models share ----------------------------------------------------------------- */

/** Exponential means so far of numbers that stand `step` apart, corrected for their start. */
class RunningMean {
  constructor(decay, n) {
    this.decay = decay;
    this.sums = new Float64Array(n);
    this.weight = 0;
  }

  add(x, from, step, y, to) {
    this.weight = this.decay * this.weight + 1;
    for (let i = 0; i < this.sums.length; i++) {
      this.sums[i] = this.decay * this.sums[i] + x[from + i * step];
      y[to + i * step] = this.sums[i] / (this.weight + 1e-10);
    }
  }
}

/** The level so far: root of a running mean of frame power that silent frames leave alone. */
class RunningLevel {
  constructor({level_decay: decay, silent_power: silent}) {
    Object.assign(this, {decay, silent, sum: 0, weight: 0});
  }

  add(x, from) {
    let power = 0;
    for (let i = from; i < x.length; i++) power += x[i] * x[i];
    power /= x.length - from;
    const heard = power > this.silent;
    this.sum = this.decay * this.sum + (heard ? power : 0);
    this.weight = this.decay * this.weight + (heard ? 1 : 0);
    return Math.sqrt(Math.max(this.sum / (this.weight + 1e-10), this.silent));
  }
}

/** Multiply re + i im at bin k by 1 - gate (1 + B tanh a + i B tanh b), from the three logits. */
function applyMask(logits, at, bound, re, im, k) {
  const gate = sigmoid(logits[at] - 2);
  const maskRe = 1 - gate * (1 + bound * Math.tanh(logits[at + 1]));
  const maskIm = -gate * bound * Math.tanh(logits[at + 2]), real = re[k], imaginary = im[k];
  re[k] = real * maskRe - imaginary * maskIm;
  im[k] = real * maskIm + imaginary * maskRe;
}

/* ---- the spectrogram model ------------------------------------------------------------------ */

/** A running signal through the model of chapter 04; `frame` takes and fills `win_length` samples. */
class Spectrogram {
  constructor(index, layers) {
    const {n_fft: n, win_length: win, constants} = index, bins = n / 2;
    Object.assign(this, {layers, constants, n, bins, later: win - n});
    this.fft = new FFT(n);
    this.window = rootHann(n);
    [this.re, this.im, this.outRe, this.outIm] = [0, 1, 2, 3].map(() => new Float64Array(n));
    [this.nextRe, this.nextIm] = [0, 1].map(() => new Float64Array(bins + 1));
    this.level = new RunningLevel(constants);
    this.means = [1, 2].map(i => new RunningMean(constants[`mean_${i}_decay`], bins));
    this.hidden = [1, 2].map(i => new Float32Array(layers[`gru_${i}`].units));
    this.buildRows(bins);
  }

  /** One row for each layer's output; the convolutions over time keep the rows of past frames. */
  buildRows(bins) {
    const {layers} = this, channels = name => layers[name].affine.bias.length;
    const spans = [1, 2].map(i => layers[`encode_${i}`].affine.nPieces);
    this.features = Array.from({length: spans[0]}, () => new Row(bins, 3 + this.means.length));
    this.encoded = [1, 2, 3, 4].map(i => new Row(bins >> i, channels(`encode_${i}`)));
    this.first = Array.from({length: spans[1]}, () => new Row(bins >> 1, channels('encode_1')));
    for (const row of this.first) layers.encode_1.apply(this.features, row); // of silence before
    this.code = new Float32Array(layers.squeeze.bias.length);
    const {bins: low, channels: n} = this.encoded[3];
    this.flat = new Float32Array(low * n);
    this.sums = [1, 2, 3, 4].map(i => new Row(bins >> i, channels(`adapt_${i}`)));
    this.decoded = [1, 2, 3, 4].map(i => new Row(
      2 * (bins >> i), layers[`decode_${i}`].phases[0].affine.bias.length));
    this.joined = new Row(bins, this.decoded[0].channels + 2 * this.features[0].channels);
    this.fine = new Row(bins, channels('fine'));
    this.logits = new Row(bins, 3);
  }

  frame(x, y) {
    const {fft, n, bins, re, im, outRe, outIm, window} = this;
    const level = this.level.add(x, this.later);
    for (let i = 0; i < n; i++) re[i] = x[this.later + i] * window[i];
    im.fill(0);
    fft.transform(re, im, outRe, outIm);
    this.addFeatures(outRe, outIm, level);
    this.network();

    // the mask is for the frame before, whose spectrum was kept
    for (let k = 0; k <= bins; k++) {
      applyMask(this.logits.data, this.logits.at(Math.max(k - 1, 0)), this.constants.mask_bound,
        this.nextRe, this.nextIm, k);
      const mirror = (n - k) % n;
      [re[k], re[mirror]] = [this.nextRe[k], this.nextRe[k]];
      [im[k], im[mirror]] = [this.nextIm[k], -this.nextIm[k]];
    }
    im[0] = im[bins] = 0;
    this.nextRe.set(outRe.subarray(0, bins + 1));
    this.nextIm.set(outIm.subarray(0, bins + 1));
    fft.transform(im, re, outIm, outRe);
    y.fill(0);
    for (let i = 0; i < n; i++) y[i] = outRe[i] / n * window[i];
  }

  /** The newest row: compressed magnitude, real and imaginary part, and the running means. */
  addFeatures(re, im, level) {
    const row = this.features.shift(), {data, channels: c} = row, power = this.constants.compression;
    this.features.push(row);
    for (let k = 0; k < this.bins; k++) {
      const a = re[k + 1] / level, b = im[k + 1] / level, at = row.at(k), p = a * a + b * b + 1e-6;
      const magnitude = p ** (power / 2), scale = magnitude / Math.sqrt(p);
      data[at] = magnitude;
      data[at + 1] = a * scale;
      data[at + 2] = b * scale;
    }
    this.means.forEach((mean, i) => mean.add(data, row.at(0), c, data, row.at(0) + 3 + i));
  }

  network() {
    const {layers, encoded, code, flat} = this;
    this.first.push(layers.encode_1.apply(this.features, this.first.shift()));
    encoded[0] = this.first.at(-1);
    layers.encode_2.apply(this.first, encoded[1]);
    layers.encode_3.apply([encoded[1]], encoded[2]);
    layers.encode_4.apply([encoded[2]], encoded[3]);

    layers.squeeze.apply([encoded[3].data], encoded[3].at(0), code, 0);
    this.hidden.forEach((h, i) => layers[`gru_${i + 1}`].apply(code, h));
    layers.expand.apply([code], 0, flat, 0);

    let x = flat, from = 0;
    for (let i = 4; i >= 1; i--) {
      const sum = layers[`adapt_${i}`].apply([encoded[i - 1]], this.sums[i - 1]), first = sum.at(0);
      for (let j = 0; j < sum.bins * sum.channels; j++) sum.data[first + j] += x[from + j];
      const row = layers[`decode_${i}`].apply(sum, this.decoded[i - 1]);
      [x, from] = [row.data, row.at(0)];
    }
    this.join(this.decoded[0], ...this.features.slice(-2));
    layers.mask_logits.apply([layers.fine.apply([this.joined], this.fine)], this.logits);
  }

  /** Lay rows of the same bins side by side into the joined one. */
  join(...rows) {
    let channel = 0;
    for (const {data, channels} of rows) {
      for (let k = 0; k < this.bins; k++) {
        const from = (k + MARGIN) * channels, to = this.joined.at(k) + channel;
        for (let c = 0; c < channels; c++) this.joined.data[to + c] = data[from + c];
      }
      channel += channels;
    }
  }
}

/* ---- the waveform model --------------------------------------------------------------------- */

/** A running signal through the model of chapter 03; `frame` takes and fills `win_length` samples. */
class Waveform {
  constructor(index, layers) {
    const {constants, win_length: win, hop_length: hop, states} = index;
    const [past] = states.find(state => state.name === 'past_hops').shape;
    const pairs = layers.encoder.bias.length / 2;
    Object.assign(this, {layers, constants, hop, pairs});
    this.heard = new Float32Array(past * hop + win); // the frame and the hops before it
    this.coefficients = new Float32Array(2 * pairs);
    [this.re, this.im] = [0, 1].map(() => new Float64Array(pairs));
    this.level = new RunningLevel(constants);
    this.means = [1, 2].map(i => new RunningMean(constants[`mean_${i}_decay`], pairs));
    this.hidden = [1, 2].map(i => new Float32Array(layers[`gru_${i}`].units));
    this.features = new Float32Array(3 * pairs);
    this.code = new Float32Array(layers.squeeze.bias.length);
    this.flat = new Float32Array(layers.expand.bias.length);
    this.joined = new Row(pairs, this.flat.length / pairs + 3);
    this.fine = new Row(pairs, layers.fine.affine.bias.length);
    this.logits = new Row(pairs, 3);
  }

  frame(x, y) {
    const {layers, heard, pairs, re, im, coefficients} = this;
    heard.copyWithin(0, this.hop);
    heard.set(x, heard.length - x.length);
    layers.encoder.apply([heard], 0, coefficients, 0);
    this.addFeatures(this.level.add(x, 0));
    this.network();
    for (let k = 0; k < pairs; k++) {
      [re[k], im[k]] = [coefficients[2 * k], coefficients[2 * k + 1]];
      applyMask(this.logits.data, this.logits.at(k), this.constants.mask_bound, re, im, k);
      [coefficients[2 * k], coefficients[2 * k + 1]] = [re[k], im[k]];
    }
    layers.decoder.apply([coefficients], 0, y, 0);
  }

  /** Magnitudes of the pairs, free of level and compressed, and their running means. */
  addFeatures(level) {
    const {features, pairs, coefficients, constants: {gain, compression}} = this;
    for (let k = 0; k < pairs; k++) {
      const a = gain * coefficients[2 * k] / level, b = gain * coefficients[2 * k + 1] / level;
      features[k] = (a * a + b * b + 1e-6) ** (compression / 2);
    }
    this.means.forEach((mean, i) => mean.add(features, 0, 1, features, (i + 1) * pairs));
  }

  network() {
    const {layers, code, flat, joined, pairs} = this, n = flat.length / pairs;
    layers.squeeze.apply([this.features], 0, code, 0);
    this.hidden.forEach((h, i) => layers[`gru_${i + 1}`].apply(code, h));
    layers.expand.apply([code], 0, flat, 0);
    for (let k = 0; k < pairs; k++) {
      const at = joined.at(k);
      for (let c = 0; c < n; c++) joined.data[at + c] = flat[k * n + c];
      for (let c = 0; c < 3; c++) joined.data[at + n + c] = this.features[c * pairs + k];
    }
    layers.mask_logits.apply([layers.fine.apply([joined], this.fine)], this.logits);
  }
}

const MODELS = {spectrogram: Spectrogram, waveform: Waveform};

/* ---- the gate by frequency ------------------------------------------------------------------ */

const GATE = {win: 512, hop: 256, actDb: 20, passDb: 30, edgeHz: 1500, edgeFade: 0.15, seconds: 10};

/** Lets through, by frequency, what a model would remove for nothing, and all below 1.5 kHz. */
class FrequencyGate {
  constructor() {
    const {win, hop, edgeHz, edgeFade, seconds} = GATE, bins = win / 2 + 1;
    this.fft = new FFT(win);
    this.window = rootHann(win);
    this.decay = Math.exp(-hop / (seconds * SAMPLE_RATE));
    this.aboveEdge = Float64Array.from({length: bins}, (_, k) => clip(
      (k * SAMPLE_RATE / win / edgeHz - 1 + edgeFade) / (2 * edgeFade)));
    [this.kept, this.removed, this.keptFrame, this.removedFrame, this.re, this.im] =
      Array.from({length: 6}, () => new Float64Array(win));
    [this.keptEnergy, this.removedEnergy] = [0, 1].map(() => new Float64Array(bins));
    this.tail = new Float64Array(win);
    this.filled = win - hop; // samples of the frame that are there
    this.ready = new Float32Array(hop);
  }

  /** Take one sample of what the model keeps and removes; true if `ready` holds the next hop. */
  push(kept, removed) {
    const {win, hop} = GATE;
    this.kept[this.filled] = kept;
    this.removed[this.filled++] = removed;
    if (this.filled < win) return false;
    this.step();
    this.kept.copyWithin(0, hop);
    this.removed.copyWithin(0, hop);
    this.filled = win - hop;
    return true;
  }

  /** One frame: a complex DFT of kept + i removed holds the spectra of both. */
  step() {
    const {win, hop} = GATE, {re, im, keptFrame, removedFrame, window, tail} = this;
    for (let i = 0; i < win; i++) {
      keptFrame[i] = this.kept[i] * window[i];
      removedFrame[i] = this.removed[i] * window[i];
    }
    this.fft.transform(keptFrame, removedFrame, re, im);
    for (let k = 0; k <= win / 2; k++) this.bin(k, (win - k) % win);
    this.fft.transform(removedFrame, keptFrame, im, re);
    for (let i = 0; i < win; i++) tail[i] += re[i] / win * window[i];
    for (let i = 0; i < hop; i++) this.ready[i] = tail[i];
    tail.copyWithin(0, hop);
    tail.fill(0, win - hop);
  }

  /** One bin and its mirror: running energies, the gain, and the spectrum of what is removed. */
  bin(k, mirror) {
    const {re, im, keptFrame, removedFrame} = this;
    const a = (re[k] + re[mirror]) / 2, b = (im[k] - im[mirror]) / 2;
    const c = (im[k] + im[mirror]) / 2, d = (re[mirror] - re[k]) / 2;
    this.keptEnergy[k] = this.decay * this.keptEnergy[k] + a * a + b * b;
    this.removedEnergy[k] = this.decay * this.removedEnergy[k] + c * c + d * d;
    const ratioDb = 10 * Math.log10((this.keptEnergy[k] + 1e-12) / (this.removedEnergy[k] + 1e-12));
    const gain = clip((GATE.passDb - ratioDb) / (GATE.passDb - GATE.actDb)) * this.aboveEdge[k];
    keptFrame[k] = keptFrame[mirror] = gain * c; // real part, the frames' memory used again
    removedFrame[k] = gain * d;
    removedFrame[mirror] = -gain * d;
  }
}

/* ---- the stream ----------------------------------------------------------------------------- */

const GLITCH = {seconds: 1, usual: 0.999, louder: 4}; // of helpers/denoise/stream.py, helpers/audio.py

/** One running signal. What comes out, `before` and `after`, is aligned and as long as what went in. */
class Stream {
  constructor(index, layers, byFrequency) {
    const {win_length: win, hop_length: hop} = index;
    this.model = new MODELS[index.method](index, layers);
    this.gate = byFrequency ? new FrequencyGate() : null;
    this.hop = hop;
    this.overlap = win - hop;
    [this.frame, this.denoised, this.tail] = [0, 1, 2].map(() => new Float32Array(win));
    [this.waiting, this.held, this.before, this.after, this.past] =
      Array.from({length: 5}, () => new Queue());
    this.waiting.push(new Float32Array(this.overlap));
    this.toDrop = this.overlap; // output of the model that belongs before the first sample
    this.gateToDrop = byFrequency ? GATE.win - GATE.hop : 0;
    this.owed = 0; // samples taken in that the model has not given back
  }

  /** Samples that the last one to come out may wait for. */
  static latency(index, byFrequency) {
    return index.win_length + (byFrequency ? GATE.win - gcd(GATE.hop, index.hop_length) : 0);
  }

  push(samples) {
    this.owed += samples.length;
    this.waiting.push(samples);
    while (this.waiting.length >= this.frame.length) this.step();
  }

  /** Let silence in behind the last sample until all that was taken in has come out. */
  finish() {
    const silence = new Float32Array(this.hop);
    while (this.owed) {
      this.waiting.push(silence);
      if (this.waiting.length >= this.frame.length) this.step();
    }
    for (let i = 0; this.gate && i < GATE.win; i++) this.throughGate(0, 0);
  }

  step() {
    const {frame, denoised, tail, hop, waiting} = this;
    this.bound(waiting.data.subarray(waiting.from + this.overlap, waiting.from + frame.length));
    for (let i = 0; i < frame.length; i++) frame[i] = waiting.data[waiting.from + i];
    waiting.drop(hop);
    this.model.frame(frame, denoised);
    for (let i = 0; i < tail.length; i++) tail[i] += denoised[i];
    for (let i = 0; i < hop; i++) this.give(frame[i], tail[i]);
    tail.copyWithin(0, hop);
    tail.fill(0, tail.length - hop);
  }

  /** Bound, in place, samples far beyond full scale and beyond the second that the hop ends. */
  bound(newest) {
    const {past} = this, {seconds, usual, louder} = GLITCH;
    past.push(newest);
    past.drop(Math.max(0, past.length - seconds * SAMPLE_RATE));
    if (newest.every(x => Math.abs(x) <= 1)) return;
    const second = past.data.subarray(past.from, past.from + past.length);
    const size = second.map(Math.abs).sort();
    const most = Math.max(1, louder * size[Math.floor(usual * (size.length - 1))]);
    newest.forEach((x, i) => { newest[i] = Math.min(Math.max(x, -most), most); });
    second.set(newest, second.length - newest.length);
  }

  /** One sample before and after the model. */
  give(noisy, denoised) {
    if (this.toDrop > 0) return void this.toDrop--;
    if (!this.owed) return;
    this.owed--;
    if (!this.gate) {
      this.before.add(noisy);
      this.after.add(denoised);
      return;
    }
    this.held.add(noisy);
    this.throughGate(denoised, noisy - denoised);
  }

  throughGate(kept, removed) {
    if (!this.gate.push(kept, removed)) return;
    for (const taken of this.gate.ready) {
      if (this.gateToDrop > 0) this.gateToDrop--;
      else if (this.held.length) {
        const noisy = this.held.data[this.held.from];
        this.held.drop(1);
        this.before.add(noisy);
        this.after.add(noisy - taken);
      }
    }
  }
}

/* ---- in an AudioWorklet --------------------------------------------------------------------- */

const now = () => globalThis.performance ? performance.now() : Date.now(); // ms

/** What the processor does at any rate of the context: to 16 kHz, through the model, and back. */
class Live {
  constructor({index, buffer, byFrequency}, rate) {
    const layers = readLayers(index, buffer), warm = new Stream(index, layers, byFrequency);
    for (let i = 0; i < 100; i++) warm.push(new Float32Array(QUANTUM).fill(i % 2)); // so it is compiled
    this.stream = new Stream(index, layers, byFrequency);
    this.heard = new Queue();
    this.outs = [new Queue(), new Queue()]; // before and after, at the context's rate
    if (rate !== SAMPLE_RATE) {
      this.down = new Resampler(rate, SAMPLE_RATE);
      this.ups = [0, 1].map(() => new Resampler(SAMPLE_RATE, rate));
    }
    const seconds = Stream.latency(index, byFrequency) / SAMPLE_RATE;
    const wait = this.down ? 2 * this.down.width + rate / SAMPLE_RATE * 2 * this.ups[0].width : 0;
    this.latency = Math.ceil(seconds * rate + wait); // samples, so that none is ever missing
    for (const out of this.outs) out.push(new Float32Array(this.latency));
  }

  /** Take a quantum at the context's rate; what is complete is in `outs`, and given back at 16 kHz. */
  push(samples) {
    const {stream, heard, outs, down, ups} = this;
    if (down) {
      down.push(samples, heard);
      stream.push(heard.shift(new Float32Array(heard.length)));
    } else stream.push(samples);
    const both = [stream.before, stream.after].map(
      queue => queue.shift(new Float32Array(queue.length)));
    both.forEach((block, i) => ups ? ups[i].push(block, outs[i]) : outs[i].push(block));
    return both;
  }
}

/** The AudioWorkletProcessor: input 0 mono; outputs 0 and 1 before and after, aligned.
 *
 * It tells its port {before, after, quanta, ms, late, missing} every 32 ms of sound: both sounds at
 * 16 kHz, how many quanta they took and their milliseconds, how many took longer than they last, and
 * samples that were not ready in time. The message "stop" has it send the rest, with `ended`.
 */
const processor = () => class extends AudioWorkletProcessor {
  constructor({processorOptions}) {
    super();
    this.live = new Live(processorOptions, sampleRate);
    this.told = {before: new Queue(), after: new Queue(), quanta: 0, ms: 0, late: 0, missing: 0};
    this.silence = new Float32Array(QUANTUM);
    this.port.onmessage = () => this.stop();
    this.port.postMessage({latency: this.live.latency / sampleRate});
  }

  process([input], outputs) {
    if (this.stopped) return false;
    const start = now(), {told, live} = this;
    this.keep(live.push(input[0] || this.silence));
    outputs.forEach(([out], i) => {
      const ready = live.outs[i];
      if (ready.length >= out.length) ready.shift(out);
      else told.missing += out.length;
    });
    const ms = now() - start;
    told.ms += ms;
    told.quanta++;
    if (ms > 1000 * QUANTUM / sampleRate) told.late++;
    if (told.before.length >= 512) this.tell({});
    return true;
  }

  keep([before, after]) {
    this.told.before.push(before);
    this.told.after.push(after);
  }

  tell(more) {
    const {before, after, ...numbers} = this.told;
    const [b, a] = [before, after].map(queue => queue.shift(new Float32Array(queue.length)));
    this.port.postMessage({before: b, after: a, ...numbers, ...more}, [b.buffer, a.buffer]);
    Object.assign(this.told, {quanta: 0, ms: 0, late: 0, missing: 0});
  }

  stop() {
    if (this.stopped) return;
    this.stopped = true;
    this.live.stream.finish();
    this.keep(this.live.push(new Float32Array(0)));
    this.tell({ended: true});
  }
};

/* ---- in a Worker ---------------------------------------------------------------------------- */

/** Denoise a whole clip, a second at a time; posts {after: blocks of all channels} for each. */
function denoiseClip({index, buffer, byFrequency, channels}) {
  if (channels.some(samples => samples.some(x => !Number.isFinite(x)))) {
    throw new Error('The file holds samples that are NaN or infinite.');
  }
  const [{length}] = channels, layers = readLayers(index, buffer);
  const streams = channels.map(() => new Stream(index, layers, byFrequency));
  for (let from = 0; from < length; from += SAMPLE_RATE) {
    const last = from + SAMPLE_RATE >= length;
    const after = streams.map((stream, i) => {
      stream.push(channels[i].subarray(from, from + SAMPLE_RATE));
      if (last) stream.finish();
      stream.before.drop(stream.before.length); // the page has it
      return stream.after.shift(new Float32Array(stream.after.length));
    });
    postMessage({after, ended: last});
  }
}

/* ---- which of them this is ------------------------------------------------------------------ */

if (typeof registerProcessor === 'function') registerProcessor('denoiser', processor());
else if (typeof WorkerGlobalScope === 'function') {
  onmessage = ({data}) => {
    try {
      denoiseClip(data);
    } catch (error) {
      postMessage({error: error.message});
    }
  };
}
