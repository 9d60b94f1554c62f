// A picture before and after, divided by a line; both can be enlarged and moved together.
export default {
  template: `
    <div class="compare">
      <div class="stage" ref="stage" :class="{ zoomed: scale > 1 }"
           :style="{ aspectRatio: ratio, width: 'min(100%, calc(68vh * ' + ratio + '))' }"
           @pointerdown="down" @pointermove="move" @pointerup="up" @pointercancel="up"
           @wheel="wheel" @dblclick="zoom(scale > 1 ? 1 : 3, $event)">
        <img :src="before" alt="The picture before" :style="{ transform }" draggable="false">
        <div v-if="after" class="clip" :style="{ clipPath: 'inset(0 0 0 ' + split + '%)' }">
          <img :src="after" :alt="'The picture after: ' + label" :style="{ transform }" draggable="false">
        </div>
        <div v-if="after" class="line" :style="{ left: split + '%' }"></div>
        <span v-if="after && split > 12" class="tag left">Before</span>
        <span v-if="after && split < 88" class="tag right">{{ label }}</span>
      </div>
      <div class="tools">
        <input v-if="after" type="range" min="0" max="100" step="1" v-model.number="split"
               aria-label="Line between before and after">
        <span v-else class="grow"></span>
        <button type="button" aria-label="Smaller" @click="zoom(scale / 1.5)">−</button>
        <button type="button" aria-label="Larger" @click="zoom(scale * 1.5)">+</button>
        <button type="button" @click="zoom(1)">Fit</button>
      </div>
    </div>`,
  props: { ratio: Number, before: String, after: String, label: String },
  data: () => ({ split: 50, scale: 1, x: 0, y: 0, pointers: new Map(), moves: "" }),
  computed: {
    transform() {
      return `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    },
  },
  methods: {
    // Enlarge about a point of the stage, its centre if there is no event.
    zoom(scale, event) {
      const box = this.$refs.stage.getBoundingClientRect();
      const px = event ? event.clientX - box.left - box.width / 2 : 0;
      const py = event ? event.clientY - box.top - box.height / 2 : 0;
      scale = Math.min(12, Math.max(1, scale));
      this.x = px - ((px - this.x) * scale) / this.scale;
      this.y = py - ((py - this.y) * scale) / this.scale;
      this.scale = scale;
      this.keepInside(box);
    },
    keepInside(box) {
      const w = (box.width * (this.scale - 1)) / 2;
      const h = (box.height * (this.scale - 1)) / 2;
      this.x = Math.min(w, Math.max(-w, this.x));
      this.y = Math.min(h, Math.max(-h, this.y));
    },
    wheel(event) {
      if (!event.ctrlKey && this.scale === 1) return; // Let the page scroll.
      event.preventDefault();
      this.zoom(this.scale * Math.exp(-event.deltaY / 300), event);
    },
    at(event) {
      const box = this.$refs.stage.getBoundingClientRect();
      return (100 * (event.clientX - box.left)) / box.width;
    },
    down(event) {
      this.$refs.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      const near = Math.abs(this.at(event) - this.split) < 6;
      this.moves = this.after && (this.scale === 1 || near) ? "line" : "picture";
      if (this.moves === "line" && this.scale === 1) this.split = this.clamped(this.at(event));
    },
    move(event) {
      const last = this.pointers.get(event.pointerId);
      if (!last) return;
      if (this.pointers.size === 2) {
        const other = [...this.pointers.values()].find((p) => p.pointerId !== event.pointerId);
        const distance = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
        this.zoom((this.scale * distance(event)) / Math.max(1, distance(last)), event);
      } else if (this.moves === "line") {
        this.split = this.clamped(this.at(event));
      } else {
        this.x += event.clientX - last.clientX;
        this.y += event.clientY - last.clientY;
        this.keepInside(this.$refs.stage.getBoundingClientRect());
      }
      this.pointers.set(event.pointerId, event);
    },
    up(event) {
      this.pointers.delete(event.pointerId);
    },
    clamped(value) {
      return Math.min(100, Math.max(0, value));
    },
  },
};
