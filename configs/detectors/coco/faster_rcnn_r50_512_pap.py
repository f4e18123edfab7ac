# As faster_rcnn_r50_512_ranking, for parameterized AP loss: its learning rate of 0.024.
_base_ = ["./faster_rcnn_r50_512_ranking.py"]

optim_wrapper = dict(optimizer=dict(lr=0.024))
