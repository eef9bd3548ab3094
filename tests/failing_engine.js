/* The page without a browser: its microphone is on, then its engine fails. Prints what the page did.
 *
 * node tests/failing_engine.js, in the project's folder. Only what the page asks of a browser is here.
 */
'use strict';

const fs = require('fs'), vm = require('vm');
const nothing = () => {}, byId = {};
const track = {readyState: 'live', stop() { this.readyState = 'ended'; }};
const canvas = {fillRect: nothing, putImageData: nothing, drawImage: nothing};
canvas.createImageData = (width, height) => ({data: new Uint8Array(4 * width * height)});

const element = () => ({
  value: '0', width: 960, height: 257, dataset: {}, style: {}, classList: {add: nothing, remove: nothing},
  setAttribute: nothing, replaceChildren: nothing, getContext: () => canvas,
});
const node = () => ({connect: nothing, disconnect: nothing});
const gain = {value: 0, cancelScheduledValues: nothing, setTargetAtTime: nothing};

class AudioContext {
  constructor() { Object.assign(this, {currentTime: 0, baseLatency: 0, sampleRate: 16000}); }
  get audioWorklet() { return {addModule: async () => {}}; }
  createGain() { return {...node(), gain}; }
  createMediaStreamSource() { return node(); }
  async suspend() {}
  async resume() {}
}

/** It is ready, tells one second, and fails. */
class AudioWorkletNode {
  constructor() {
    Object.assign(this, node(), {port: {postMessage: nothing}});
    const second = () => new Float32Array(16000), numbers = {quanta: 125, ms: 1, late: 0, missing: 0};
    setTimeout(() => this.port.onmessage({data: {latency: 0.06}}), 10);
    setTimeout(() => this.port.onmessage({data: {before: second(), after: second(), ...numbers}}), 50);
    setTimeout(() => this.onprocessorerror(), 100);
  }
}

const page = {
  setTimeout, performance, AudioContext, AudioWorkletNode, location: {protocol: 'http:'},
  requestAnimationFrame: draw => setTimeout(draw, 16),
  fetch: async () => ({ok: true, json: async () => ({}), arrayBuffer: async () => new ArrayBuffer(0)}),
  navigator: {mediaDevices: {getUserMedia: async () => ({getTracks: () => [track]})}},
  document: {
    getElementById: id => id === 'weights' ? null : byId[id] ||= element(),
    createElement: element, querySelector: element, querySelectorAll: () => [],
  },
};
page.window = vm.createContext(page);
for (const file of ['web/denoiser.js', 'web/page.js']) vm.runInContext(fs.readFileSync(file, 'utf8'), page);
byId.record.onclick();
setTimeout(() => {
  const recorded = vm.runInContext('clipShown?.before[0].length', page);
  const [status, record] = [byId.status, byId.record].map(one => one.textContent);
  console.log(JSON.stringify({status, record, recorded, track: track.readyState}));
  process.exit();
}, 1500);
