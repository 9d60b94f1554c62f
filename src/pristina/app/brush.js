// A picture on which parts are marked with a brush: to be filled in, or to be left as they are.
import { zoomable } from "zoom";

const COLOURS = { mask: "#d8262c", protect: "#1a5fd0" };
const PAUSE_MS = 500; // Time after the last stroke after which all is sent to the server.
const drawn = new Map(); // Strokes of each picture, while the page is open.

export default {
  mixins: [zoomable],
  template: `
    <div class="compare brush">
      <div class="tools top-tools" role="group" aria-label="Brush">
        <button v-for="(words, name) in kinds" type="button" :class="name"
                :aria-pressed="String(kind === name)" @click="kind = name">{{ words }}</button>
      </div>
      <div class="stage" ref="stage" tabindex="0" role="application" @keydown="key" @blur="pen = false"
           aria-label="Picture to mark. The arrow keys move the brush, space sets it down and lifts it."
           :style="{ aspectRatio: ratio, width: 'min(100%, calc(68vh * ' + ratio + '))' }"
           @pointerdown="down" @pointermove="move" @pointerup="up" @pointercancel="up"
           @pointerleave="cursor = null" @wheel="wheel">
        <img ref="image" :src="source" alt="" :style="{ transform }" draggable="false" @load="redraw">
        <canvas ref="canvas" :style="{ transform }"></canvas>
        <div v-if="cursor && kind !== 'move'" class="cursor" :class="{ pen }"
             :style="{ left: cursor.x + 'px', top: cursor.y + 'px', width: size + 'px', height: size + 'px' }"></div>
      </div>
      <div class="tools">
        <label for="brush-size">Size</label>
        <input id="brush-size" type="range" min="4" max="120" step="2" v-model.number="size">
        <button type="button" :disabled="!n" @click="undo">Undo</button>
        <button type="button" :disabled="!n" @click="clear">Clear</button>
        <button type="button" aria-label="Smaller" @click="zoom(scale / 1.5)">−</button>
        <button type="button" aria-label="Larger" @click="zoom(scale * 1.5)">+</button>
        <button type="button" @click="zoom(1)">Fit</button>
      </div>
    </div>`,
  props: { ratio: Number, picture: String },
  data: () => ({
    kind: "mask", size: 24, n: 0, cursor: null, pen: false, painting: false, timer: 0, sent: 0, full: {},
  }),
  computed: {
    source() {
      return `/pictures/${this.picture}`;
    },
    kinds: () => ({ mask: "Fill in", protect: "Leave as it is", erase: "Erase", move: "Move" }),
    strokes() {
      if (!drawn.has(this.picture)) drawn.set(this.picture, []);
      return drawn.get(this.picture);
    },
  },
  mounted() {
    this.$refs.stage.focus({ preventScroll: true });
  },
  unmounted() {
    if (this.timer) this.send();
  },
  methods: {
    // Where a place of the stage, in its pixels, lies in the picture, in the pixels of that.
    inPicture({ x, y }) {
      const box = this.$refs.stage.getBoundingClientRect();
      const { width, height } = this.$refs.canvas;
      const part = (place, shift, side) => ((place - shift - side / 2) / this.scale + side / 2) / side;
      return [part(x, this.x, box.width) * width, part(y, this.y, box.height) * height];
    },
    place(event) {
      const box = this.$refs.stage.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    },
    begin(at) {
      const box = this.$refs.stage.getBoundingClientRect();
      const width = ((this.size / this.scale) * this.$refs.canvas.width) / box.width;
      this.strokes.push({ kind: this.kind, width, points: [this.inPicture(at)] });
      this.changed();
      this.goOn(at);
    },
    goOn(at) {
      const stroke = this.strokes.at(-1);
      const point = this.inPicture(at);
      const context = this.$refs.canvas.getContext("2d");
      this.paint(context, { ...stroke, points: [stroke.points.at(-1), point] }, COLOURS);
      stroke.points.push(point);
      this.wait();
    },
    // Draw a stroke; where there is no colour for its kind, it takes away what is there.
    paint(context, { kind, width, points }, colours) {
      context.globalCompositeOperation = colours[kind] ? "source-over" : "destination-out";
      Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
      context.strokeStyle = colours[kind] || "#000";
      context.beginPath();
      context.moveTo(points[0][0] + 0.01, points[0][1]); // A line of no length is not drawn.
      for (const point of points) context.lineTo(...point);
      context.stroke();
    },
    redraw() {
      const { image, canvas } = this.$refs;
      this.full = { width: image.naturalWidth, height: image.naturalHeight };
      Object.assign(canvas, this.full);
      for (const stroke of this.strokes) this.paint(canvas.getContext("2d"), stroke, COLOURS);
      this.n = this.strokes.length;
    },
    undo() {
      this.strokes.pop();
      this.redraw();
      this.changed();
    },
    clear() {
      this.strokes.length = 0;
      this.redraw();
      this.changed();
    },
    changed() {
      this.n = this.strokes.length;
      this.$emit("painting");
      this.wait();
    },
    wait() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.send(), PAUSE_MS);
    },
    // Send what is marked of each kind, white on black.
    async send() {
      clearTimeout(this.timer);
      this.timer = 0;
      const number = ++this.sent;
      const form = new FormData();
      const strokes = this.strokes;
      for (const kind of Object.keys(COLOURS)) {
        if (!strokes.some((stroke) => stroke.kind === kind)) continue;
        const canvas = document.createElement("canvas");
        Object.assign(canvas, this.full);
        const context = canvas.getContext("2d");
        for (const stroke of strokes) this.paint(context, stroke, { [kind]: "#fff" });
        context.globalCompositeOperation = "destination-over";
        context.fillRect(0, 0, canvas.width, canvas.height);
        form.append(kind, await new Promise((done) => canvas.toBlob(done, "image/png")), `${kind}.png`);
      }
      if (number !== this.sent) return;
      try {
        const answer = await fetch(`${this.source}/marks`, { method: "POST", body: form });
        if (!answer.ok) this.$emit("refused", { detail: (await answer.json()).detail });
        else if (number === this.sent && !this.timer) this.$emit("painted");
      } catch {
        this.$emit("refused", { detail: "What you marked could not be sent." });
      }
    },
    down(event) {
      if (event.button) return;
      this.$refs.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      this.cursor = this.place(event);
      if (this.kind === "move") return;
      if (this.painting && this.strokes.at(-1)?.points.length < 6) this.undo(); // Two fingers enlarge.
      this.painting = this.pointers.size === 1;
      if (this.painting) this.begin(this.cursor);
    },
    move(event) {
      this.cursor = this.place(event);
      const last = this.pointers.get(event.pointerId);
      if (!last) return;
      if (this.kind === "move" || this.pointers.size === 2) this.drag(event, last);
      else if (this.painting) this.goOn(this.cursor);
      this.pointers.set(event.pointerId, event);
    },
    up(event) {
      this.pointers.delete(event.pointerId);
      this.painting = false;
    },
    key(event) {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step && event.key !== " ") return;
      event.preventDefault();
      const box = this.$refs.stage.getBoundingClientRect();
      const at = this.cursor || { x: box.width / 2, y: box.height / 2 };
      const inside = (value, side) => Math.min(side, Math.max(0, value));
      if (!step && this.kind !== "move" && !(this.pen = !this.pen)) return;
      if (!step) this.begin(at);
      this.cursor = at;
      if (!step) return;
      const far = Math.max(4, this.size / 2);
      this.cursor = { x: inside(at.x + far * step[0], box.width), y: inside(at.y + far * step[1], box.height) };
      if (this.pen) this.goOn(this.cursor);
    },
  },
};
