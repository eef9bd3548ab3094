/* The page: a file or the microphone, pictures and sound before and after, and what can be set.
 *
 * denoiser.js does the work: in a Worker for clips, in an AudioWorklet for the microphone. Weights come
 * from the folder that <main data-models> names, or lie in the page itself (helpers/display/live.py).
 */
'use strict';

const LONGEST_CLIP = 1800, LONGEST_RECORDING = 600; // s
const LARGEST_FILE = 2e9; // bytes
const WIN = 512, HOP = 256; // samples, of the pictures
const RANGE_DB = 70; // from black to white
const LIVE_TOP_DB = -15; // white while live, re full scale
const LIVE_COLUMNS = 3; // that are drawn at once at least, 48 ms
const MAGMA = ('000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c ' +
  'fc8961 fea772 fec488 fde2a3 fcfdbf').split(' ').map(hex => [0, 2, 4].map(
  i => parseInt(hex.slice(i, i + 2), 16)));
const STOPPED = 'The engine stopped; start the microphone again.';

const $ = id => document.getElementById(id);
const settings = () => ({method: $('method').value, byFrequency: !$('whole').checked});
const say = text => { $('status').textContent = text; };
const label = (text, ...ids) => ids.forEach(
  id => $(id).setAttribute('aria-label', `Spectrogram ${id}, ${text}`));
const pause = ms => new Promise(done => setTimeout(done, ms));

/* ---- weights and engine --------------------------------------------------------------------- */

const inlined = $('weights') && JSON.parse($('weights').textContent);
const engine = inlined
  ? URL.createObjectURL(new Blob([$('engine').textContent], {type: 'text/javascript'}))
  : $('denoiser').dataset.engine;
const models = {};
const fromDisk = !inlined && location.protocol === 'file:';

/** What went wrong, for the reader. */
const reason = error => fromDisk
  ? 'A browser does not run this page from disk. This command opens it: denoiser page.' : error.message;

/** The index and the buffer of a method, fetched once. */
function loadModel(method) {
  models[method] ||= inlined ? readInlined(inlined[method]) : fetchModel(method);
  models[method].catch(() => delete models[method]); // the next try asks again
  return models[method];
}

async function readInlined({index, base64}) {
  const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  return {index, buffer: bytes.buffer};
}

async function fetchModel(method) {
  const base = $('denoiser').dataset.models + method;
  const [index, weights] = await Promise.all([`${base}.json`, `${base}.bin`].map(get));
  return {index: await index.json(), buffer: await weights.arrayBuffer()};
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is missing on this server.`);
  return answer;
}

/* ---- pictures ------------------------------------------------------------------------------- */

/** A spectrogram on a canvas: whole for a clip, running for the microphone. */
class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.fft = new FFT(WIN);
    this.window = rootHann(WIN).map(x => x * x);
    [this.re, this.im, this.outRe, this.outIm] = [0, 1, 2, 3].map(() => new Float64Array(WIN));
    this.column = this.context.createImageData(1, WIN / 2 + 1);
    this.power = new Float64Array(WIN / 2 + 1);
    this.colours = Array.from({length: 256}, (_, i) => {
      const at = i / 255 * (MAGMA.length - 1), low = Math.min(Math.floor(at), MAGMA.length - 2);
      return MAGMA[low].map((x, c) => x + (at - low) * (MAGMA[low + 1][c] - x));
    });
    this.clear();
  }

  clear() {
    this.waiting = new Queue();
    this.context.fillStyle = '#000004';
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Add the power of WIN samples from `start`; a full-scale sine has 1 in its bin. */
  add(samples, start) {
    const {re, im, outRe, outIm, power} = this;
    for (let i = 0; i < WIN; i++) re[i] = (samples[start + i] || 0) * this.window[i];
    im.fill(0);
    this.fft.transform(re, im, outRe, outIm);
    for (let k = 0; k < power.length; k++) {
      power[k] += (outRe[k] ** 2 + outIm[k] ** 2) * (4 / WIN) ** 2;
    }
  }

  draw(x, topDb, count) {
    const {power, column: {data}} = this, last = power.length - 1;
    for (let k = 0; k <= last; k++) {
      const db = 10 * Math.log10(power[k] / count + 1e-20);
      const colour = this.colours[Math.round(255 * clip((db - topDb) / RANGE_DB + 1))];
      const at = 4 * (last - k);
      for (let c = 0; c < 3; c++) data[at + c] = colour[c];
      data[at + 3] = 255;
    }
    this.context.putImageData(this.column, x, 0);
    power.fill(0);
  }

  /** The columns of a clip that is `length` samples long, of which those from..to are there. */
  drawClip(samples, length, from, to, topDb) {
    const {width} = this.canvas, step = length / width, count = Math.min(4, Math.ceil(step / HOP));
    for (let x = Math.floor(from / step); x < Math.min(width, to / step); x++) {
      for (let i = 0; i < count; i++) {
        this.add(samples, Math.round((x + (i + 0.5) / count) * step - WIN / 2));
      }
      this.draw(x, topDb, count);
    }
  }

  /** Draw the columns of a running picture for which samples wait, if there are some. */
  run(topDb) {
    const {waiting, canvas, context} = this, n = Math.floor(waiting.length / HOP) - 1;
    if (n < LIVE_COLUMNS) return;
    context.drawImage(canvas, -n, 0);
    for (let x = canvas.width - n; x < canvas.width; x++) {
      if (x >= 0) {
        this.add(waiting.data, waiting.from);
        this.draw(x, topDb, 1);
      }
      waiting.drop(HOP);
    }
  }
}

const pictures = {before: new Picture($('before')), after: new Picture($('after'))};

/** The loudest bin of a clip in dB, to the next 5, which is white in both pictures. */
function topOf(samples) {
  const {before: picture} = pictures;
  let most = 1e-9;
  for (let i = 0; i < 400; i++) {
    picture.add(samples, Math.floor(i / 400 * samples.length));
    most = Math.max(most, ...picture.power);
    picture.power.fill(0);
  }
  return 5 * Math.ceil(10 * Math.log10(most) / 5);
}

function showScale(topDb, labels) {
  $('low').textContent = `${topDb - RANGE_DB}`;
  $('high').textContent = `${topDb} dB re full scale`;
  $('seconds').replaceChildren(...labels.map(text => {
    const label = document.createElement('span');
    label.textContent = text;
    return label;
  }));
}

const quarters = seconds => [0, 1, 2, 3, 4].map(
  i => `${(i / 4 * seconds).toFixed(seconds < 20 ? 1 : 0)} s`);

/* ---- a clip --------------------------------------------------------------------------------- */

// {name, before, after: channels as Float32Array, mixed: after's mean, done: samples, topDb, buffers}
let clipShown = null;
let worker = null;

/** The mean of channels; of one, itself. */
function mean(channels) {
  if (channels.length === 1) return channels[0];
  const mixed = new Float32Array(channels[0].length);
  for (const samples of channels) samples.forEach((x, i) => { mixed[i] += x / channels.length; });
  return mixed;
}

/** Show a clip and denoise it; channels are Float32Array at 16 kHz. */
function showClip(name, before) {
  stopPlaying();
  const {length} = before[0], drawn = mean(before), topDb = topOf(drawn);
  const after = before.map(() => new Float32Array(length));
  const mixed = after.length > 1 ? new Float32Array(length) : after[0];
  clipShown = {name, before, after, mixed, done: 0, topDb};
  pictures.before.drawClip(drawn, length, 0, length, topDb);
  showScale(topDb, quarters(length / SAMPLE_RATE));
  label(name, 'before');
  $('position').max = length / SAMPLE_RATE;
  moveTo(0);
  denoiseClipShown();
}

async function denoiseClipShown() {
  const {name, before} = clipShown, start = performance.now(), {method, byFrequency} = settings();
  worker?.terminate();
  stopPlaying();
  Object.assign(clipShown, {done: 0, buffers: null});
  pictures.after.clear();
  label(`${name}, not yet whole`, 'after');
  enable(false);
  $('progress').hidden = false;
  $('progress').value = 0;
  say(`Denoising ${name} …`);
  try {
    const mine = worker = new Worker(engine);
    mine.onmessage = ({data}) => mine === worker && receive(data, start);
    mine.onerror = () => mine === worker
      && receive({error: reason(new Error('The engine does not run here.'))}, start);
    const model = await loadModel(method);
    mine.postMessage({...model, byFrequency, channels: before});
  } catch (error) {
    receive({error: reason(error)}, start);
  }
}

/** The next second of the clip from the worker. */
function receive({after, ended, error}, start) {
  if (error) {
    $('progress').hidden = true;
    return say(error);
  }
  const clip = clipShown, from = clip.done, {length} = clip.mixed;
  after.forEach((block, i) => clip.after[i].set(block, from));
  clip.mixed.set(mean(after), from);
  clip.done += after[0].length;
  const settled = ended ? clip.done : Math.max(0, clip.done - WIN); // a column looks ahead
  pictures.after.drawClip(clip.mixed, length, Math.max(0, from - WIN), settled, clip.topDb);
  $('progress').value = clip.done / length;
  if (!ended) return;
  $('progress').hidden = true;
  label(clip.name, 'after');
  const seconds = length / SAMPLE_RATE, took = (performance.now() - start) / 1000;
  say(`${clip.name}: ${seconds.toFixed(1)} s denoised in ${took.toFixed(1)} s.`);
  enable(true);
}

function enable(on) {
  for (const id of ['play', 'position', 'save-after', 'save-before']) $(id).disabled = !on;
}

async function openFile(file) {
  await stopMicrophone();
  say(`Reading ${file.name} …`);
  try {
    if (file.size > LARGEST_FILE) throw tooLarge(`More than ${LARGEST_FILE / 1e9} GB`);
    refuseLong(await durationOf(file)); // decoding would take memory for all of it
    showClip(file.name, await decode(await file.arrayBuffer()));
  } catch (error) {
    say(error.name === 'TooLarge' ? error.message
      : `${file.name}: this browser cannot read it as sound. The command line reads more: denoiser denoise.`);
  }
}

const tooLarge = what => Object.assign(
  new Error(`${what}; the command line takes any length: denoiser denoise.`), {name: 'TooLarge'});

/** Throw for what is too long for the memory of a page: the more channels, the sooner. */
function refuseLong(seconds, channels = 1) {
  const longest = LONGEST_CLIP * Math.min(1, 2 / channels), minutes = +(longest / 60).toFixed(1);
  if (seconds > longest) {
    throw tooLarge(`Longer than ${minutes} minutes${channels > 2 ? ` in ${channels} channels` : ''}`);
  }
}

/** Seconds of a file that is not decoded yet; NaN where the browser does not know. */
async function durationOf(file) {
  const element = new Audio();
  const told = new Promise(done => { element.onloadedmetadata = element.onerror = done; });
  element.preload = 'metadata';
  element.src = URL.createObjectURL(file);
  await Promise.race([told, pause(2000)]);
  URL.revokeObjectURL(element.src);
  return Number.isFinite(element.duration) ? element.duration : NaN;
}

/** All channels at 16 kHz of the bytes of a sound file. */
async function decode(bytes) {
  const sound = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(bytes);
  refuseLong(sound.duration, sound.numberOfChannels);
  return Array.from({length: sound.numberOfChannels}, (_, i) => sound.getChannelData(i));
}

/** A bundled voice in white noise of 4 to 8 kHz that is as loud as the voice. */
async function openExample() {
  await stopMicrophone();
  say('Fetching the example …');
  try {
    const [voice] = await decode(await (await get($('denoiser').dataset.example)).arrayBuffer());
    const noise = highNoise(voice.length), gain = Math.sqrt(energy(voice) / energy(noise));
    showClip('Example', [voice.map((x, i) => 0.7 * (x + gain * noise[i]))]);
  } catch (error) {
    say(reason(error));
  }
}

const energy = samples => samples.reduce((sum, x) => sum + x * x, 0);

/** White noise without what lies below 4 kHz. */
function highNoise(length) {
  const n = 2 ** Math.ceil(Math.log2(length)), fft = new FFT(n);
  const [re, im, outRe, outIm] = [0, 1, 2, 3].map(() => new Float64Array(n));
  for (let i = 0; i < n; i++) re[i] = Math.random() + Math.random() + Math.random() - 1.5;
  fft.transform(re, im, outRe, outIm);
  for (let k = 0; k < n; k++) if (Math.min(k, n - k) < n / 4) outRe[k] = outIm[k] = 0;
  fft.transform(outIm, outRe, im, re);
  return Float32Array.from(re.subarray(0, length), x => x / n);
}

/* ---- sound out ------------------------------------------------------------------------------ */

let context = null, gains = null, playing = null; // playing: {sources, from: s, at: s of the context}

/** The context at `rate` with two gains, before and after, into one for both. */
function newContext(rate) {
  context?.close();
  context = new AudioContext({sampleRate: rate, latencyHint: 'interactive'});
  const [before, after, both] = [0, 1, 2].map(() => context.createGain());
  before.connect(both);
  after.connect(both);
  both.connect(context.destination);
  gains = {before, after, both};
  setGains(true);
}

/** Before, or the share of after that the dial says; without clicks. */
function setGains(atOnce) {
  const listen = document.querySelector('[name=listen]:checked').value;
  const share = listen === 'after' ? $('strength').value / 100 : 0;
  $('share').textContent = `${$('strength').value} %`;
  if (!gains) return;
  const loud = microphone && !$('monitor').checked ? 0 : 1;
  for (const [node, value] of [[gains.after, share], [gains.before, 1 - share], [gains.both, loud]]) {
    node.gain.cancelScheduledValues(0);
    if (atOnce) node.gain.value = value;
    else node.gain.setTargetAtTime(value, context.currentTime, 0.008);
  }
}

/** A clip's sound, copied for the browser once; it knows where 1, 2, 4 and 6 channels belong. */
function bufferOf(all) {
  const channels = [1, 2, 4, 6].includes(all.length) ? all : [mean(all)];
  const buffer = context.createBuffer(channels.length, channels[0].length, SAMPLE_RATE);
  channels.forEach((samples, i) => buffer.copyToChannel(samples, i));
  return buffer;
}

function play() {
  if (!context || context.state === 'closed') newContext(SAMPLE_RATE);
  context.resume();
  let from = Number($('position').value);
  if (from > $('position').max - 0.05) from = 0;
  const at = context.currentTime + 0.05;
  clipShown.buffers ||= {before: bufferOf(clipShown.before), after: bufferOf(clipShown.after)};
  const sources = ['before', 'after'].map(name => {
    const source = context.createBufferSource();
    source.buffer = clipShown.buffers[name];
    source.connect(gains[name]);
    source.start(at, from);
    return source;
  });
  playing = {sources, from, at};
  sources[0].onended = () => playing?.sources === sources && (moveTo(Number($('position').max)), stopPlaying());
  $('play').textContent = 'Pause';
  requestAnimationFrame(follow);
}

function stopPlaying() {
  if (!playing) return;
  const {sources} = playing;
  playing = null;
  for (const source of sources) source.stop();
  $('play').textContent = 'Play';
}

function follow() {
  if (!playing) return;
  moveTo(Math.max(playing.from, playing.from + context.currentTime - playing.at));
  requestAnimationFrame(follow);
}

/** Show a position in seconds. */
function moveTo(seconds) {
  const longest = Number($('position').max), at = Math.min(seconds, longest);
  $('position').value = at;
  $('time').textContent = `${at.toFixed(1)} s`;
  for (const head of document.querySelectorAll('.head')) {
    head.hidden = !clipShown || Boolean(microphone);
    head.style.left = `${100 * at / longest}%`;
  }
}

function seek(seconds) {
  const was = playing;
  stopPlaying();
  moveTo(seconds);
  if (was) play();
}

/* ---- the microphone ------------------------------------------------------------------------- */

let microphone = null; // {stream, source, node, ended, before, after: blocks, sums of what it told}

async function startMicrophone() {
  $('record').disabled = true;
  $('numbers').textContent = '';
  delete $('numbers').dataset.numbers;
  try {
    if (!navigator.mediaDevices || !window.AudioWorkletNode) {
      throw new Error('The microphone needs a page from https or from this computer, and an AudioWorklet.');
    }
    stopPlaying();
    const exact = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
    const stream = await navigator.mediaDevices.getUserMedia({audio: {...exact, channelCount: 1}});
    microphone = {stream, before: [], after: [], samples: 0, quanta: 0, ms: 0, late: 0, missing: 0};
    connectSource();
    await context.audioWorklet.addModule(engine);
    await connectModel();
    worker?.terminate();
    worker = clipShown = null;
    showLive();
  } catch (error) {
    microphone?.stream.getTracks().forEach(track => track.stop());
    microphone = null;
    setGains(true); // a clip that was there can be played still
    say(error.name === 'NotAllowedError' ? 'The browser did not give the microphone; allow it beside the address.'
      : error.name === 'NotFoundError' ? 'There is no microphone.' : reason(error));
  }
  $('record').disabled = false;
}

/** The microphone in a context of 16 kHz, or of the device's rate where a browser cannot do that. */
function connectSource() {
  const {stream} = microphone;
  newContext(SAMPLE_RATE);
  try {
    microphone.source = context.createMediaStreamSource(stream);
  } catch (error) {
    if (error.name !== 'NotSupportedError') throw error;
    newContext(stream.getAudioTracks()[0].getSettings().sampleRate);
    microphone.source = context.createMediaStreamSource(stream);
  }
}

/** Put the chosen model between the microphone and the gains, while the sound stands still. */
async function connectModel() {
  const {method, byFrequency} = settings(), mine = microphone;
  const model = await loadModel(method);
  await context.suspend();
  const node = new AudioWorkletNode(context, 'denoiser', {
    numberOfOutputs: 2, outputChannelCount: [1, 1], channelCount: 1, channelCountMode: 'explicit',
    processorOptions: {...model, byFrequency},
  });
  const ready = new Promise((done, failed) => {
    mine.ended = new Promise(ended => {
      node.port.onmessage = ({data}) => data.latency ? done(mine.latency = data.latency)
        : hear(mine, data) && ended();
      node.onprocessorerror = () => {
        failed(new Error(STOPPED));
        ended();
        inTurn(() => stopFailed(mine, node));
      };
    });
    setTimeout(done, 2000); // a browser may tell nothing before the sound goes on
  });
  mine.node = node;
  mine.source.connect(node);
  node.connect(gains.before, 0);
  node.connect(gains.after, 1);
  await ready;
  mine.earlier = underrunsOf(context) - (mine.underruns || 0);
  await context.resume();
}

/** Times that the sound ran dry, NaN where the browser does not tell. */
const underrunsOf = ({playbackStats}) => playbackStats?.underrunEvents ?? NaN;

let turn = Promise.resolve();

/** Do one thing after the other with files and the microphone, however fast they are asked for. */
function inTurn(work) {
  turn = turn.then(work).catch(error => say(error.message));
  return turn;
}

/** Let the model go, once it has sent the rest. */
async function disconnectModel() {
  const {node, source, ended} = microphone;
  source.disconnect();
  node.port.postMessage('stop');
  await Promise.race([ended, pause(5000)]); // rather without the rest than never
  node.port.onmessage = null;
  node.disconnect();
}

/** Keep what was recorded before the engine failed, unless it was let go already. */
async function stopFailed(mine, node) {
  if (mine !== microphone || node !== mine.node) return;
  await stopMicrophone();
  say(STOPPED);
}

/** What the processor tells: sound before and after, and how it fares. Gives whether it ended. */
function hear(mine, {before, after, ended, quanta, ms, late, missing}) {
  mine.before.push(before);
  mine.after.push(after);
  mine.samples += before.length;
  for (const [key, value] of Object.entries({quanta, ms, late, missing})) mine[key] += value;
  pictures.before.waiting.push(before);
  pictures.after.waiting.push(after);
  if (mine.samples > LONGEST_RECORDING * SAMPLE_RATE && !ended) inTurn(stopMicrophone);
  return ended;
}

/** Draw what has come: as often as the browser has time to, however busy it is. */
function followLive() {
  if (!microphone) return;
  Object.values(pictures).forEach(picture => picture.run(LIVE_TOP_DB));
  if (microphone.quanta) showNumbers(microphone);
  requestAnimationFrame(followLive);
}

function showLive() {
  Object.values(pictures).forEach(picture => picture.clear());
  label('the microphone now', 'before', 'after');
  const columns = $('before').width * HOP / SAMPLE_RATE;
  showScale(LIVE_TOP_DB, quarters(columns).map((_, i) => i < 4
    ? `−${((1 - i / 4) * columns).toFixed(0)} s` : 'now'));
  enable(false);
  moveTo(0);
  $('record').textContent = 'Stop the microphone';
  $('record').classList.add('on');
  $('progress').hidden = true;
  setGains();
  requestAnimationFrame(followLive);
  say('The microphone is on.');
}

/** The running numbers: seconds, latency, work, and whether any sound was lost. */
function showNumbers(mine) {
  const {samples, latency, quanta, ms, late, missing} = mine, model = 1000 * latency;
  const underruns = mine.underruns = underrunsOf(context) - mine.earlier;
  const browser = 1000 * (context.baseLatency + (context.outputLatency || 0));
  const each = 1000 * QUANTUM / context.sampleRate;
  const lost = Number.isNaN(underruns) ? late : underruns;
  $('numbers').textContent = `${(samples / SAMPLE_RATE).toFixed(0)} s · to the ear ` +
    `${(model + browser).toFixed(0)} ms, ${model.toFixed(0)} of them in the model · ` +
    `${(ms / quanta).toFixed(1)} ms of work for ${each.toFixed(1)} ms of sound · ` +
    (lost === 1 ? '1 dropout' : `${lost} dropouts`);
  $('numbers').dataset.numbers = JSON.stringify({samples, latency, quanta, ms, late, missing, underruns});
}

/** Stop; what was recorded becomes a clip. */
async function stopMicrophone() {
  if (!microphone) return;
  const mine = microphone;
  await disconnectModel();
  mine.stream.getTracks().forEach(track => track.stop());
  if (mine.quanta) showNumbers(mine);
  microphone = null;
  $('record').textContent = 'Start the microphone';
  $('record').classList.remove('on');
  setGains();
  const [before, after] = [mine.before, mine.after].map(blocks => {
    const whole = new Float32Array(mine.samples);
    blocks.reduce((at, block) => (whole.set(block, at), at + block.length), 0);
    return whole;
  });
  if (mine.samples) showRecording(before, after);
  else {
    label('empty', 'before', 'after');
    say('Nothing was recorded.');
  }
}

/** The recording as a clip, denoised already. */
function showRecording(before, after) {
  const {length} = before, topDb = topOf(before);
  clipShown = {name: 'Recording', before: [before], after: [after], mixed: after, done: length, topDb};
  label('Recording', 'before', 'after');
  pictures.before.drawClip(before, length, 0, length, topDb);
  pictures.after.drawClip(after, length, 0, length, topDb);
  showScale(topDb, quarters(length / SAMPLE_RATE));
  $('position').max = length / SAMPLE_RATE;
  moveTo(0);
  enable(true);
  say(`Recording: ${(length / SAMPLE_RATE).toFixed(1)} s. Save it before the next sound.`);
}

async function applySettings() {
  if (microphone) {
    await loadModel(settings().method); // where it is missing, the other goes on
    await disconnectModel();
    await connectModel();
  } else if (clipShown) denoiseClipShown();
}

/* ---- saving --------------------------------------------------------------------------------- */

function save(name) {
  const {before, after} = clipShown, share = name === 'after' ? $('strength').value / 100 : 0;
  const channels = before.map((samples, c) => samples.map(
    (x, i) => share * after[c][i] + (1 - share) * x));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([wav(channels)], {type: 'audio/wav'}));
  link.download = `${clipShown.name.replace(/\.[^.]*$/, '').toLowerCase()}_${name}.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** The bytes of a WAV of 32-bit float, so that nothing is rounded or clipped. */
function wav(channels) {
  const n = channels.length, size = 4 * n * channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + size));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, 36 + size, true);
  text(8, 'WAVEfmt ');
  for (const [at, value] of [[16, 16], [24, SAMPLE_RATE], [28, 4 * n * SAMPLE_RATE], [40, size]]) {
    view.setUint32(at, value, true);
  }
  for (const [at, value] of [[20, 3], [22, n], [32, 4 * n], [34, 32]]) view.setUint16(at, value, true);
  text(36, 'data');
  channels[0].forEach((_, i) => channels.forEach(
    (samples, c) => view.setFloat32(44 + 4 * (i * n + c), samples[i], true)));
  return view;
}

/* ---- what the reader does ------------------------------------------------------------------- */

$('file').onchange = () => {
  const [file] = $('file').files;
  if (file) inTurn(() => openFile(file));
  $('file').value = ''; // the same file can be chosen again
};
$('example').onclick = () => inTurn(openExample);
$('record').onclick = () => inTurn(microphone ? stopMicrophone : startMicrophone);
$('monitor').onchange = () => setGains();
$('play').onclick = () => playing ? stopPlaying() : play();
$('position').oninput = () => seek(Number($('position').value));
$('strength').oninput = () => setGains();
$('method').onchange = $('whole').onchange = () => inTurn(applySettings);
$('save-after').onclick = () => save('after');
$('save-before').onclick = () => save('before');
for (const radio of document.querySelectorAll('[name=listen]')) radio.onchange = () => setGains();
for (const picture of document.querySelectorAll('.picture')) {
  picture.onclick = event => {
    const {left, width} = picture.getBoundingClientRect();
    if (!$('position').disabled) seek((event.clientX - left) / width * $('position').max);
  };
}
document.ondragover = event => {
  event.preventDefault();
  $('drop').classList.add('over');
};
document.ondragleave = () => $('drop').classList.remove('over');
document.ondrop = event => {
  event.preventDefault();
  $('drop').classList.remove('over');
  const [file] = event.dataTransfer.files;
  if (file) inTurn(() => openFile(file));
};

if (inlined) {
  const {options} = $('method');
  for (const option of [...options]) if (!(option.value in inlined)) option.remove();
  $('method').value = Object.keys(inlined)[0];
  $('example').hidden = true; // it would have to be fetched
  new ResizeObserver(() => {
    if (frameElement) frameElement.style.height = `${document.body.offsetHeight + 8}px`;
  }).observe(document.body);
}
showScale(LIVE_TOP_DB, []);
if (fromDisk) say(reason());
