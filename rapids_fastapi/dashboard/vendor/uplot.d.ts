/** What the page uses of uPlot. */
export default class uPlot {
  constructor(options: any, data: any, target: HTMLElement);
  setSize(size: { width: number; height: number }): void;
  setData(data: any): void;
  destroy(): void;
}
