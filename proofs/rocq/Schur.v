(** Section 3.1, cutting (m > d_in): what the remaining block of H⁻¹ is.

    In words, with m = k + r and H split into blocks [A B; C D]: the leading k × k block of H⁻¹ is the inverse of the
    Schur complement A − B D⁻¹ C, and for a symmetric positive semi-definite H it dominates A⁻¹. So the paper's rule is
    not the same as leaving the last r instances out. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions QuadraticForms.
Open Scope R_scope.

Lemma sum_split k r u : sum (k + r) u = sum k u + (Σ g < r, u (k + g)%nat).
Proof.
  induction r as [|r IH]; [rewrite Nat.add_0_r; simpl; ring|].
  rewrite Nat.add_succ_r. simpl. rewrite IH. ring.
Qed.

(** D: the last rows and columns. *)
Definition last_block (k : nat) (H : matrix) : matrix := fun c e => H (k + c)%nat (k + e)%nat.

(** A − B E C, with E for D⁻¹. *)
Definition schur_complement (k r : nat) (H E : matrix) : matrix :=
  fun a b => H a b - (Σ c < r, Σ e < r, H a (k + c)%nat * E c e * H (k + e)%nat b).

Theorem truncated_inverse_is_of_schur_complement k r H X E :
  inverse (k + r) H X -> inverse r E (last_block k H) -> inverse k (schur_complement k r H E) X.
Proof.
  intros full block a b row column.
  (* C X_11 = −D X_21 *)
  assert (lower : forall e, (e < r)%nat ->
            (Σ l < k, H (k + e)%nat l * X l b) = - (Σ g < r, last_block k H e g * X (k + g)%nat b)).
  { intros e inside. assert (zero := full (k + e)%nat b ltac:(lia) ltac:(lia)).
    rewrite one_hot_other, sum_split in zero by lia. unfold last_block. lra. }
  (* E C X_11 = −X_21 *)
  assert (solved : forall c, (c < r)%nat ->
            (Σ e < r, E c e * (Σ l < k, H (k + e)%nat l * X l b)) = - X (k + c)%nat b).
  { intros c inside.
    rewrite (sum_ext r _ (fun e => Σ g < r, - 1 * (E c e * last_block k H e g * X (k + g)%nat b))).
    - rewrite sum_swap, (sum_ext r _ (fun g => - 1 * (one_hot c g * X (k + g)%nat b))).
      + rewrite sum_scale, (sum_one_hot r c (fun g => X (k + g)%nat b)) by assumption. ring.
      + intros g bound. rewrite sum_scale, (sum_scale_right (X (k + g)%nat b) r (fun e => E c e * last_block k H e g)).
        rewrite block by assumption. reflexivity.
    - intros e bound. rewrite lower by assumption. rewrite sum_scale.
      rewrite (sum_ext r (fun g => E c e * last_block k H e g * X (k + g)%nat b)
                 (fun g => E c e * (last_block k H e g * X (k + g)%nat b))) by (intros; ring).
      rewrite sum_scale. ring. }
  rewrite <- (full a b) by lia. rewrite sum_split. unfold schur_complement.
  rewrite (sum_ext k _ (fun l => H a l * X l b
      - (Σ c < r, Σ e < r, H a (k + c)%nat * (E c e * (H (k + e)%nat l * X l b))))).
  - rewrite sum_minus. unfold Rminus. f_equal.
    rewrite sum_swap, (sum_ext r _ (fun c => - 1 * (H a (k + c)%nat * X (k + c)%nat b))).
    + rewrite sum_scale. ring.
    + intros c inside. rewrite sum_swap.
      rewrite (sum_ext r _ (fun e => H a (k + c)%nat * (E c e * (Σ l < k, H (k + e)%nat l * X l b)))).
      * rewrite sum_scale, solved by assumption. ring.
      * intros e bound. rewrite !sum_scale. reflexivity.
  - intros l inside. rewrite Rmult_minus_distr_r. f_equal. rewrite <- sum_scale_right. apply sum_ext; intros c _.
    rewrite <- sum_scale_right. apply sum_ext; intros e _. ring.
Qed.

(** vᵀ(A⁻¹)v ≤ vᵀ(H⁻¹)_11 v: the form of H at the difference of the two solutions, H⁻¹v and A⁻¹v. *)
Theorem truncated_inverse_dominates k m H X Y :
  (k <= m)%nat -> symmetric m H -> positive_semidefinite m H -> inverse m H X -> inverse k H Y ->
  forall v, quadratic_form k Y v <= quadratic_form k X v.
Proof.
  intros shorter same psd full block v.
  set (w := product m X (padded k v)). set (y := padded k (product k Y v)).
  assert (solved_w : forall a, (a < m)%nat -> product m H w a = padded k v a)
    by (intros; apply product_inverse; assumption).
  assert (solved_y : forall a, (a < k)%nat -> product m H y a = v a).
  { intros a row. unfold product at 1, y. rewrite sum_padded by assumption. apply (product_inverse k); assumption. }
  assert (nonneg := psd (fun a => w a + - 1 * y a)).
  rewrite quadratic_form_line in nonneg by assumption.
  (* wᵀHw = vᵀX_11 v; yᵀHw = yᵀHy = vᵀA⁻¹v *)
  assert (of_w : quadratic_form m H w = quadratic_form k X v).
  { rewrite !quadratic_form_product, (sum_ext m _ (fun a => w a * padded k v a))
      by (intros a row; rewrite solved_w by assumption; reflexivity).
    rewrite sum_padded by assumption. apply sum_ext; intros a row. unfold w, product.
    rewrite sum_padded by assumption. ring. }
  assert (of_y : (Σ a < k, product k Y v a * v a) = quadratic_form k Y v).
  { rewrite quadratic_form_product. apply sum_ext; intros; ring. }
  assert (mixed : (Σ a < m, y a * product m H w a) = quadratic_form k Y v).
  { rewrite <- of_y, (sum_ext m _ (fun a => y a * padded k v a))
      by (intros a row; rewrite solved_w by assumption; reflexivity).
    rewrite sum_padded by assumption. apply sum_ext; intros a row. unfold y. rewrite padded_inside by assumption.
    reflexivity. }
  assert (own : quadratic_form m H y = quadratic_form k Y v).
  { rewrite quadratic_form_product, <- of_y, (sum_ext m _ (fun a => product m H y a * y a)) by (intros; ring).
    unfold y at 2. rewrite sum_padded by assumption. apply sum_ext; intros a row. rewrite solved_y by assumption. ring. }
  rewrite of_w, mixed, own in nonneg. lra.
Qed.
