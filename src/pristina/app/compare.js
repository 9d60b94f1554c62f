// A picture before and after, divided by a line; both can be enlarged and moved together.
import { zoomable } from "zoom";

export default {
  mixins: [zoomable],
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
  data: () => ({ split: 50, moves: "" }),
  methods: {
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
      if (this.moves === "line" && this.pointers.size === 1) this.split = this.clamped(this.at(event));
      else this.drag(event, last);
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
